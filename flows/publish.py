"""The predictor's files become a registered version, once: `python -m flows.publish`.

Run after `dvc repro`: the gates judge by the calibration study, too. Everything comes from artifacts/, and what the
registry held besides from mlruns/registry.json: a lost database is rebuilt by this command at any time.
"""

import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows.artifacts import DATASET, PARAMS, PREDICTOR, STUDIES_FOLDER, TARGETS, lineage, write_json
from flows.runtime import REFUSALS, refusal

if TYPE_CHECKING:
    from modelpred.registry import Calibration

RECORD = Path(".modelpred/published.json")
DATABASE = Path("mlflow.db")
CALIBRATION = STUDIES_FOLDER / "calibration"
LOCK = Path("dvc.lock")
CACHE = Path(".dvc/cache/files/md5")


def register() -> str:
    """Registers what artifacts/predictor holds, if it is not yet, and judges it; says which version it is."""
    # Imported here, and MLflow later still: a run that changes nothing does not wait for them.
    import polars as pl  # noqa: PLC0415

    from modelpred import registry  # noqa: PLC0415
    from modelpred.dataset import read_dataset  # noqa: PLC0415
    from modelpred.params import read_params  # noqa: PLC0415
    from modelpred.targets import points_of  # noqa: PLC0415
    from modelpred.targets.shards import read_bank  # noqa: PLC0415

    check_as_written()
    dataset = read_dataset(DATASET)
    gates = read_params(PARAMS).gates
    version = registry.publish(
        PREDICTOR,
        dataset_name=dataset.name,
        evidence=registry.Evidence(
            registry.held_out_errors(pl.read_parquet(PREDICTOR / "fidelity.parquet")),
            None if gates.calibration is None else calibration(),
        ),
        lineage=registry.Lineage.model_validate(
            {**lineage(), "dataset_fingerprint": dataset.fingerprint}
        ),
        gates=gates,
        root=Path(),
        held_out=read_bank(TARGETS).select(role="test"),
        test_points=points_of(dataset.test_features, dataset.test_labels, len(dataset.classes)),
    )
    told = f"{version.name} version {version.version} ({', '.join(version.aliases) or 'no alias'})"
    if version.reasons:
        told += f": {'; '.join(version.reasons)}"
    RECORD.parent.mkdir(exist_ok=True)
    write_json({**_state(), "told": told}, RECORD)
    return told


def check_as_written() -> None:
    """Refuses predictor files that differ from those that dvc.lock names: a flipped bit is a valid tensor, too.

    Raises:
        InvalidInput: names the file.
    """
    from modelpred.errors import InvalidInput  # noqa: PLC0415

    stages: dict[str, Any] = yaml.safe_load(LOCK.read_text())["stages"] if LOCK.is_file() else {}
    for out in stages.get("predictor", {}).get("outs", ()):
        listed = CACHE / out["md5"][:2] / out["md5"][2:]
        if not listed.is_file():  # DVC keeps its cache elsewhere
            continue
        for entry in json.loads(listed.read_text()):
            path = PREDICTOR / entry["relpath"]
            found = hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else None
            if found != entry["md5"]:
                raise InvalidInput(f"{path} is not the one that dvc.lock names; run dvc repro")


def calibration() -> "Calibration | None":
    """What the calibration study says of this very predictor; None where it has not run since the predictor was fitted."""
    import polars as pl  # noqa: PLC0415

    from modelpred.registry import calibration_of  # noqa: PLC0415

    if not (CALIBRATION / "metrics.json").is_file() or not _calibrated_this():
        return None
    skipped = json.loads((CALIBRATION / "metrics.json").read_text()).get("skipped", "")
    return calibration_of(pl.read_parquet(CALIBRATION / "predictions.parquet"), skipped=skipped)


def _calibrated_this() -> bool:
    """Whether dvc.lock says that the study read the predictor that is there now."""
    stages: dict[str, Any] = yaml.safe_load(LOCK.read_text())["stages"] if LOCK.is_file() else {}
    fitted = [out["md5"] for out in stages.get("predictor", {}).get("outs", ())]
    read = [
        dependency.get("md5")
        for dependency in stages.get("studies@calibration", {}).get("deps", ())
        if dependency["path"] == PREDICTOR.as_posix()
    ]
    return bool(fitted) and fitted == read


def registered() -> str | None:
    """What `register` said about these very files and this very database; None if it never did."""
    try:
        record = json.loads(RECORD.read_text())
        told: str = record.pop("told")
        return told if record == _state() else None
    except (OSError, ValueError, KeyError):
        return None


def _state() -> dict[str, str | int]:
    """What a registration follows from, cheap to compare: the files that it reads and the database."""
    digest = hashlib.sha256()
    for path in (*sorted(PREDICTOR.iterdir()), *sorted(CALIBRATION.glob("*.*")), LOCK):
        if path.is_file():
            digest.update(f"{path.name} {path.stat().st_size} ".encode())
            digest.update(path.read_bytes())
    gates = yaml.safe_load(PARAMS.read_text()).get("gates", {})
    database = DATABASE.stat()
    return {
        "files": digest.hexdigest(),
        "gates": json.dumps(gates, sort_keys=True),
        # Another file when it was lost and made anew, another time when somebody moved an alias.
        "database": f"{database.st_ino} {database.st_mtime_ns}",
        "folder": str(PREDICTOR.absolute()),  # paths in the database are absolute
    }


def _registered_now() -> str:
    from modelpred.errors import InvalidInput  # noqa: PLC0415

    try:
        return register()
    except InvalidInput as error:
        sys.exit(f"publish: {error}")
    except Exception as error:
        if isinstance(error, OSError) and error.errno in REFUSALS:
            sys.exit(f"publish: {refusal(error)}")
        # MLflow hands the database's own words on, in exceptions of many kinds.
        if found := re.search(
            r"database or disk is full|readonly database|unable to open database", str(error)
        ):
            sys.exit(
                f"publish: {DATABASE}: {found[0]}; make room or give permission, then run again"
            )
        raise


def main() -> None:
    """Registers what is not registered and says what is there."""
    if not PREDICTOR.is_dir():
        sys.exit(f"publish: there is no {PREDICTOR}; run dvc repro first")
    told = registered()
    if told is None:
        told = _registered_now()
    sys.stdout.write(f"registered: {told}{os.linesep}")


if __name__ == "__main__":
    main()
