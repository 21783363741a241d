"""A fitted ModelPred, in memory and in a folder.

    dataset/        rows, labels, scaling             Parquet, JSON
    targets/        every trained subset, in shards   Parquet, JSON
    predictor/      the fitted network                safetensors, JSON
    modelpred.json  what the three must be, and how labels are written

The folders are what the pipeline's stages of these names write. modelpred.json is written after them and
names their content by hash, and SHA256SUMS seals it, so that a folder is read whole or refused. Nothing
in it is executed.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from modelpred.api.edited import Reference
from modelpred.api.labels import LabelKind, Labels
from modelpred.api.reading import Reading, levels_of
from modelpred.api.settings import Asked
from modelpred.dataset import Dataset, read_dataset, write_dataset
from modelpred.engine import Engine, Plan, Prepared, Problem, Targets, problem_of
from modelpred.errors import InvalidInput
from modelpred.estimators import (
    Adapted,
    AdaptedTorch,
    adapted_document,
    read_adapted,
)
from modelpred.predictor import (
    Predictor,
    predictor_fingerprint,
    read_predictor,
    write_predictor,
)
from modelpred.predictor.consistency import require_rows, require_widths
from modelpred.sealed import advice, parse_model, read_sealed, refuse, seal, write_atomically
from modelpred.subsets import Subsets, blocks
from modelpred.targets import Points, TrainedTargets, dataset_test_points
from modelpred.targets.parquet import Shard, ShardMetadata
from modelpred.targets.shards import (
    MANIFEST_NAME,
    ManifestEntry,
    read_shards,
    row_contents,
    shard_fingerprint,
    write_manifest,
    write_shard,
)

DESCRIPTION_FILE = "modelpred.json"
AGAIN = "save the ModelPred again"
BLOCK = 250  # subsets in one shard
COLUMNS = tuple(field.name for field in fields(TrainedTargets))


@dataclass(frozen=True)
class Fitted:
    """The result of a fit.

    Attributes:
        dataset: rows, scaled, with the test rows if there are any.
        reading: how a caller's tables become points.
        engine: gives the models of subsets; it has the model of all rows, and from its first
            prediction on the trained subsets and the predictor.
    """

    dataset: Dataset
    reading: Reading
    engine: Engine

    @property
    def problem(self) -> Problem:
        """The family, the pool and the model of all rows."""
        return self.engine.problem

    @property
    def test_points(self) -> Points | None:
        """The test rows, or None."""
        dataset = self.dataset
        if not len(dataset.test_labels):
            return None
        return dataset_test_points(dataset)

    @property
    def scored_points(self) -> Points:
        """The default rows to score models on: the test rows, or the training rows if there are none."""
        return self.test_points or self.problem.points

    @property
    def reference(self) -> Reference:
        """The reference for edited models."""
        test = self.test_points
        return Reference(
            self.reading,
            self.problem.model,
            self.problem.full_parameters,
            on="training rows" if test is None else "test rows",
            points=test or self.problem.points,
            ids=self.dataset.row_ids if test is None else self.dataset.test_row_ids,
            tolerance=self.problem.tolerance,
        )


class Description(BaseModel):
    """modelpred.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    labels: LabelKind
    named_columns: bool
    tolerance: float = Field(gt=0)
    asked: Asked
    dataset: str
    targets: str
    predictor: str
    redrawn: dict[str, int] = Field(default_factory=dict)
    estimator: dict[str, Any] | None = None


def write_fitted(fitted: Fitted, asked: Asked, folder: Path) -> None:
    """Write the three folders, then modelpred.json that seals them.

    Raises:
        InvalidInput: an estimator or module that is not saved.
    """
    estimator = _estimator_document(fitted.reading.adapted)
    folder.mkdir(parents=True, exist_ok=True)
    prepared = fitted.engine.with_test_subsets()
    # What is half written must not pass for the version before.
    (folder / DESCRIPTION_FILE).unlink(missing_ok=True)
    write_dataset(fitted.dataset, folder / "dataset")
    _write_targets(fitted, folder / "targets")
    write_predictor(prepared.predictor, folder / "predictor")
    description = Description(
        labels=fitted.reading.labels.kind,
        named_columns=fitted.reading.named,
        tolerance=fitted.problem.tolerance,
        asked=asked,
        dataset=fitted.dataset.fingerprint,
        targets=_manifest_hash(folder / "targets"),
        predictor=predictor_fingerprint(folder / "predictor"),
        redrawn=dict(prepared.targets.subsets.redrawn),
        estimator=estimator,
    )
    # What was added later is left out at its default, so that older files stay the same.
    later = {"automatic", "accuracy"} - set(asked.model_dump(exclude_defaults=True))
    unused: dict[str, Any] = {"asked": later} if later else {}
    unused |= {} if estimator else {"estimator": True}
    text = json.dumps(description.model_dump(exclude=unused), indent=2) + "\n"
    write_atomically(folder / DESCRIPTION_FILE, text.encode())
    seal(folder, (DESCRIPTION_FILE,))


def read_fitted(folder: Path) -> tuple[Fitted, Asked]:
    """Read a fit and its settings; InvalidInput if a part is missing, damaged or of another fit."""
    with advice(AGAIN):  # no stage wrote these files
        return _read_fitted(folder)


def _read_fitted(folder: Path) -> tuple[Fitted, Asked]:
    description = _read_description(folder / DESCRIPTION_FILE)
    found = {
        "targets": _manifest_hash(folder / "targets"),
        "predictor": predictor_fingerprint(folder / "predictor"),
    }
    dataset = read_dataset(folder / "dataset")
    found["dataset"] = dataset.fingerprint
    for part, fingerprint in found.items():
        if fingerprint != getattr(description, part):
            raise _unusable(folder / part, f"it is not the one that {DESCRIPTION_FILE} names")
    predictor = read_predictor(folder / "predictor")
    labels = Labels(description.labels, dataset.classes)
    levels = levels_of(dataset.encoding, dataset.rows)
    adapted = None if description.estimator is None else read_adapted(description.estimator)
    reading = Reading(
        dataset.encoding, description.named_columns, dataset.scaling, labels, levels, adapted
    )
    problem = problem_of(
        predictor.model, predictor.points, tolerance=description.tolerance, row_ids=dataset.row_ids
    )
    targets = read_parts(folder, dataset, predictor, description.redrawn, again=AGAIN)
    if predictor.tolerance != description.tolerance:
        raise _unusable(folder / "predictor", f"its tolerance is not that of {DESCRIPTION_FILE}")
    asked = description.asked
    subsets = asked.subsets.for_points(len(dataset.row_ids))
    plan = Plan(subsets, asked.predictor, asked.automatic, asked.accuracy)
    engine = Engine(problem, plan, Prepared(targets, predictor))
    return Fitted(dataset, reading, engine), asked


def _estimator_document(
    adapted: Adapted | AdaptedTorch | None,
) -> dict[str, Any] | None:
    if isinstance(adapted, AdaptedTorch):
        raise InvalidInput(
            "a ModelPred of a torch module is not saved, because a module is code; save what you need "
            "of it, such as trained_subsets, values or to_torch().state_dict()"
        )
    return None if adapted is None else adapted_document(adapted)


def _write_targets(fitted: Fitted, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    problem, targets = fitted.problem, fitted.engine.targets
    model = problem.model
    place = {subset_id: row for row, subset_id in enumerate(targets.subsets.ids)}
    entries: list[ManifestEntry] = []
    contents = row_contents(fitted.dataset)
    for name, block in blocks(targets.subsets, BLOCK):
        rows = [place[subset_id] for subset_id in block.ids]
        path = folder / f"{name}.parquet"
        metadata = ShardMetadata(
            fingerprint=shard_fingerprint(contents, model, problem.tolerance, block),
            dataset=fitted.dataset.fingerprint,
            model=model.name,
            settings=model.settings,
            tolerance=problem.tolerance,
        )
        sha256 = write_shard(
            path, block=block, trained=_rows(targets.trained, rows), metadata=metadata
        )
        entries.append(
            ManifestEntry(
                file=path.name,
                fingerprint=metadata.fingerprint,
                sha256=sha256,
                size=path.stat().st_size,
                rows=len(rows),
                designs=dict(Counter(block.designs)),
            )
        )
    listed = {entry.file for entry in entries}
    for left in folder.glob("*.parquet"):
        if left.name not in listed:
            left.unlink()
    write_manifest(folder, entries)


def _rows(trained: TrainedTargets, rows: list[int]) -> TrainedTargets:
    return TrainedTargets(**{name: getattr(trained, name)[rows] for name in COLUMNS})


def read_parts(
    folder: Path, dataset: Dataset, predictor: Predictor, redrawn: dict[str, int], *, again: str
) -> Targets:
    """The trained subsets in targets/, which must belong to the data set and the predictor.

    Args:
        folder: holds targets/ and predictor/.
        dataset: of the fit.
        predictor: of the fit.
        redrawn: number of subsets that were drawn again, by design.
        again: the advice where they do not belong together.

    Raises:
        InvalidInput: a shard is damaged, or one of the three is of another fit.
    """
    model, points = predictor.model, predictor.points
    require_rows(folder / "predictor", points, predictor.row_ids, dataset, again=again)
    place = folder / "targets"
    shards = list(read_shards(place))
    if len({(s.block.weights.shape[1], s.trained.parameters.shape[1]) for s in shards}) != 1:
        raise refuse(place, "its shards differ in width, or there are none", again=again)
    trained = {json.dumps([s.metadata.model, s.metadata.settings], sort_keys=True) for s in shards}
    if trained != {json.dumps([model.name, model.settings], sort_keys=True)}:
        raise refuse(place, f"its models are not those of predictor/, {model.name}", again=again)
    targets = _targets_of(shards, redrawn)
    if len(set(targets.subsets.ids)) != len(targets.subsets.ids):
        raise refuse(place, "two shards hold the same subset", again=again)
    weights, parameters = targets.subsets.weights, targets.trained.parameters
    require_widths(place, weights, parameters, model, points, again=again)
    return targets


def _targets_of(shards: list[Shard], redrawn: dict[str, int]) -> Targets:
    wide = any(shard.block.weights.dtype == torch.int32 for shard in shards)
    kind = torch.int32 if wide else torch.uint8
    subsets = Subsets(
        tuple(subset_id for shard in shards for subset_id in shard.block.ids),
        tuple(role for shard in shards for role in shard.block.roles),
        tuple(design for shard in shards for design in shard.block.designs),
        torch.cat([shard.block.weights.to(kind) for shard in shards]),
        redrawn,
    )
    columns = {
        name: torch.cat([torch.as_tensor(getattr(shard.trained, name)) for shard in shards])
        for name in COLUMNS
    }
    return Targets(subsets, TrainedTargets(**columns))


def _manifest_hash(folder: Path) -> str:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise _unusable(path, "it is missing")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_description(path: Path) -> Description:
    if not path.is_file():
        raise InvalidInput(f"{path} is missing; name a folder that ModelPred.save wrote")
    return parse_model(Description, read_sealed(path, again=AGAIN), path, again=AGAIN)


def _unusable(path: Path, why: str) -> InvalidInput:
    return refuse(path, why, again=AGAIN)
