"""Files that are not what they were: whatever the bytes, reading ends in the content or in one clean error.

Each mutation flips bits, cuts, repeats, removes, inserts or blanks bytes at random places of a file, by a generator
with a seed. Hashes are brought up to date where that lets the damage through to the reader behind them.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from modelpred.dataset import DatasetConfig, prepare, read_dataset, write_dataset
from modelpred.errors import InvalidInput
from modelpred.params import read_params
from modelpred.predictor import PredictorConfig, fit_predictor, read_predictor, write_predictor
from modelpred.predictor.request_handler import read_test_points, write_test_points
from modelpred.refits import FullModel, LinearDatamodel
from modelpred.refits.files import RIVALS_FILE, read_rivals, write_rivals
from modelpred.registry.snapshot import read_snapshot
from modelpred.sealed import seal
from modelpred.studies.results import StudyResult, read_result, write_result
from modelpred.subsets import Subsets, draw, read_subsets, write_subsets
from modelpred.targets import dataset_points, dataset_test_points, target_model, train_targets
from modelpred.targets.parquet import ShardMetadata
from modelpred.targets.shards import (
    MANIFEST_NAME,
    ManifestEntry,
    read_bank,
    read_manifest,
    read_shard,
    write_manifest,
    write_shard,
)

ROOT = Path(__file__).parents[1]
EACH = 7  # mutations of every file in the suite; 100 where slow tests are asked for


@dataclass(frozen=True)
class Case:
    """A file, what reads it, and what must be brought up to date before it is read."""

    file: str
    read: Callable[[Path], object]
    seal: Callable[[Path], None] | None = None


def read_registry(folder: Path) -> object:
    return read_snapshot(folder)


def read_test_rows(folder: Path) -> object:
    return read_test_points(folder, read_predictor(folder))


def read_other_methods(folder: Path) -> object:
    predictor = read_predictor(folder)
    return read_rivals(folder / RIVALS_FILE, predictor.model, predictor.points)


CASES = [
    Case("shard.parquet", lambda folder: read_shard(folder / "shard.parquet")),
    Case(MANIFEST_NAME, read_manifest, seal),
    Case(MANIFEST_NAME, read_bank, seal),
    Case("predictor.safetensors", read_predictor),
    Case("predictor.json", read_predictor),
    Case("test.safetensors", read_test_rows),
    Case(RIVALS_FILE, read_other_methods),
    Case("params.yaml", lambda folder: read_params(folder / "params.yaml")),
    Case("dataset.json", read_dataset, seal),
    Case("points.parquet", read_dataset, seal),
    Case("rows.parquet", read_dataset, seal),
    Case("encoding.json", read_dataset, seal),
    Case("subsets.json", read_subsets, seal),
    Case("subsets.parquet", read_subsets, seal),
    Case("metrics.json", read_result, seal),
    Case("mlruns/registry.json", read_registry),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with a small file of every kind."""
    folder = tmp_path_factory.mktemp("files")
    dataset = prepare(DatasetConfig(source="iris", points=12, test=6))
    write_dataset(dataset, folder)
    model = target_model("logistic", C=1.0)
    points = dataset_points(dataset)
    weights = draw("uniform", points=12, count=9, generator=np.random.default_rng(0))
    trained = train_targets(model, dataset.features, dataset.labels, weights.double(), classes=2)
    block = Subsets(
        ids=tuple(map(str, range(9))),
        roles=("fit",) * 9,
        designs=("uniform",) * 9,
        weights=weights.to(torch.uint8),
    )
    metadata = ShardMetadata(
        fingerprint="a" * 64,
        dataset=dataset.fingerprint,
        model="logistic",
        settings=model.settings,
        tolerance=1e-6,
    )
    path = folder / "shard.parquet"
    sha256 = write_shard(path, block=block, trained=trained, metadata=metadata)
    entry = ManifestEntry(
        file="shard.parquet",
        fingerprint="a" * 64,
        sha256=sha256,
        size=path.stat().st_size,
        rows=9,
        designs={"uniform": 9},
    )
    write_manifest(folder, [entry])
    config = PredictorConfig(epochs=1, width=4, step_width=4, steps=1)
    write_predictor(
        fit_predictor(config, model, points, weights.double(), trained.parameters), folder
    )
    ones = torch.ones(len(points.labels), trained.parameters.shape[1], dtype=torch.float64)
    datamodel = LinearDatamodel(ones, ones[0], penalty=1.0)
    full = FullModel(model, points, trained.parameters[0])
    others = {datamodel.name: datamodel, full.name: full}
    write_rivals(others, folder / RIVALS_FILE, trained=9)
    write_subsets(block, folder)
    write_result(StudyResult({"error": 0.5}, {}), folder)
    write_test_points(dataset_test_points(dataset), folder)
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "mlruns").mkdir()
    (folder / "mlruns" / "registry.json").write_text(json.dumps(REGISTRY))
    seal(folder)
    return folder


VERSION = {"version": 1, "source": "mlruns/x", "tags": {"a": "b"}, "run_tags": {}, "metrics": {"m": 1.5}, "params": {}}  # fmt: skip
MODEL = {"name": "modelpred-x", "tags": {"champions": "1"}, "aliases": {"champion": 1}, "versions": [VERSION]}  # fmt: skip
REGISTRY = {"schema_version": 1, "models": [MODEL]}


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """The content with one kind of damage at one to three places."""
    data = bytearray(content)
    kind = int(generator.integers(6))
    for _ in range(int(generator.integers(1, 4))):
        start = int(generator.integers(len(data) + 1))
        end = min(len(data), start + int(generator.integers(1, 65)))
        if kind == 0 and start < len(data):
            data[start] ^= 1 << int(generator.integers(8))
        elif kind == 1:
            del data[start:]
        elif kind == 2:
            data[start:start] = data[start:end] * int(generator.integers(1, 20))
        elif kind == 3:
            del data[start:end]
        elif kind == 4:
            data[start:start] = generator.bytes(int(generator.integers(1, 65)))
        else:
            data[start:end] = bytes(end - start)
    return bytes(data)


def survives(case: Case, files: Path, folder: Path, seed: int) -> None:
    """One mutation: content or InvalidInput; any other exception fails the test."""
    target = folder / case.file
    content = (files / case.file).read_bytes()
    target.write_bytes(mutated(content, np.random.default_rng(seed)))
    told = "content"
    try:
        if case.seal is not None:
            case.seal(folder)
        case.read(folder)
    except InvalidInput as error:
        told = str(error)
    finally:
        target.write_bytes(content)
    assert 0 < len(told) < 5000, seed


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.file} {case.read.__name__}")
def test_any_damage_is_content_or_one_clean_error(case, files, tmp_path):
    copied = shutil.copytree(files, tmp_path / "files")
    for seed in range(EACH):
        survives(case, files, copied, seed)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.file} {case.read.__name__}")
def test_a_thousand_damages_are_content_or_clean_errors(case, files, tmp_path):
    copied = shutil.copytree(files, tmp_path / "files")
    for seed in range(100, 200):
        survives(case, files, copied, seed)


@pytest.mark.parametrize(
    "name", ["../shard.parquet", "/etc/passwd", "a/b.parquet", "..parquet/x", ".hidden.parquet"]
)
def test_a_name_in_a_manifest_never_leaves_its_folder(files, tmp_path, name):
    copied = shutil.copytree(files, tmp_path / "files")
    manifest = json.loads((copied / MANIFEST_NAME).read_text())
    manifest["shards"][0]["file"] = name
    (copied / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(InvalidInput, match="not the one that SHA256SUMS names"):
        read_bank(copied)
    seal(copied)
    with pytest.raises(InvalidInput, match="not a valid manifest"):
        read_bank(copied)


def test_nothing_that_is_written_or_read_is_a_pickle():
    """No module imports pickle or calls what unpickles.

    torch.load with weights_only builds tensors alone, by an interpreter of its own that imports nothing.
    """
    tensors_only = re.compile(r"torch\.load\([^\n]*weights_only=True")
    words = ("import pickle", "pickle.load", "torch.load", "torch.save", "allow_pickle=True", "cloudpickle", "joblib.load")  # fmt: skip
    modules = [*(ROOT / "modelpred").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in modules
        for word in words
        if word in tensors_only.sub("", path.read_text())
    ]
    assert found == []
