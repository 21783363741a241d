"""Registers the predictor in MLflow unless it is already registered: `python -m flows.publish`.

Run it after `dvc repro`, because the gates use the calibration study. Everything is read from artifacts/ and, for the
earlier versions, from mlruns/registry.json, so this command also rebuilds a lost database.
"""

# First: without Prefect, DVC and MLflow it ends the process in one line.
import flows.orchestration  # noqa: F401 # pyright: ignore[reportUnusedImport]

# isort: split

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flows.artifacts import (
    DATASET,
    PARAMS,
    PREDICTOR,
    STUDIES_FOLDER,
    TARGETS,
    lineage,
    locked_stages,
)
from flows.runtime import one_line_errors
from modelpred.errors import InvalidInput
from modelpred.sealed import (
    changed_input,
    check_inputs,
    hashed,
    parse_hashed,
    read_file,
    read_json,
    read_table,
    refuse,
    remake,
    write_atomically,
)
from modelpred.yaml_files import read_yaml

if TYPE_CHECKING:
    from modelpred.registry import Calibration

RECORD = Path(".modelpred/published.json")
DATABASE = Path("mlflow.db")
CALIBRATION = STUDIES_FOLDER / "calibration"
LOCK = Path("dvc.lock")
CACHE = Path(".dvc/cache/files/md5")
OUTPUTS = "outputs.json"
UNREGISTERED = (
    "not registered: targets.model is code of your own, of which outputs are predicted; a registered "
    "version would have to import it where it is served"
)


def register() -> str:
    """Register the predictor in artifacts/predictor and check the gates; returns a message with its version."""
    # Imported late: a run that changes nothing does not need them.
    from modelpred import registry  # noqa: PLC0415
    from modelpred.dataset import read_dataset  # noqa: PLC0415
    from modelpred.params import read_params  # noqa: PLC0415
    from modelpred.targets import dataset_test_points  # noqa: PLC0415
    from modelpred.targets.shards import read_bank  # noqa: PLC0415

    check_as_written()
    check_inputs(PREDICTOR, again=remake("predictor"))
    dataset = read_dataset(DATASET)
    gates = read_params(PARAMS).gates
    version = registry.publish(
        PREDICTOR,
        dataset_name=dataset.name,
        evidence=registry.Evidence(
            registry.held_out_errors(
                read_table(PREDICTOR / "fidelity.parquet", again=remake("predictor"))
            ),
            None if gates.calibration is None else calibration(),
        ),
        lineage=registry.Lineage.model_validate(
            {**lineage(), "dataset_fingerprint": dataset.fingerprint}
        ),
        gates=gates,
        root=Path(),
        held_out=read_bank(TARGETS).select(role="test"),
        test_points=dataset_test_points(dataset),
    )
    message = (
        f"{version.name} version {version.version} ({', '.join(version.aliases) or 'no alias'})"
    )
    if version.reasons:
        message += f", not approved because {'; '.join(version.reasons)}"
    RECORD.parent.mkdir(exist_ok=True)
    text = json.dumps(hashed({**_state(), "message": message}), indent=2) + "\n"
    write_atomically(RECORD, text.encode())
    return message


def check_as_written() -> None:
    """Check the predictor's files against the hashes in dvc.lock; a flipped bit would load without an error.

    Raises:
        InvalidInput: a file differs; the message names it.
    """
    stages = locked_stages()
    for out in stages.get("predictor", {}).get("outs", ()):
        listed = CACHE / out["md5"][:2] / out["md5"][2:]
        if not listed.is_file():  # DVC keeps its cache elsewhere
            continue
        for name, digest in _tracked(listed).items():
            path = PREDICTOR / name
            there = path.is_file() and read_file(path, again=remake("predictor"))
            if not there or hashlib.md5(there).hexdigest() != digest:
                raise InvalidInput(f"{path} is not the one that dvc.lock names; run dvc repro")


def _tracked(listed: Path) -> dict[str, str]:
    """The MD5 of each file of a folder, by name, from the list in DVC's cache."""
    again = "remove it, then run dvc repro"
    content = read_file(listed, again=again)
    if hashlib.md5(content).hexdigest() != "".join(listed.parts[-2:]).removesuffix(".dir"):
        raise refuse(listed, "its content is not the one that its name tells", again=again)
    try:
        return {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise refuse(listed, "it is no list of files of DVC", again=again) from error


def calibration() -> "Calibration | None":
    """Results of the calibration study for this predictor; None if the study has not run since the fit."""
    from modelpred.registry import calibration_of  # noqa: PLC0415

    if not os.path.lexists(CALIBRATION) or not _calibrated_this():
        return None
    again = remake("studies@calibration")
    if changed_input(CALIBRATION, again=again) is not None:
        return None
    skipped = read_json(CALIBRATION / "metrics.json", again=again).get("skipped", "")
    predictions = read_table(CALIBRATION / "predictions.parquet", again=again)
    return calibration_of(predictions, skipped=skipped)


def _calibrated_this() -> bool:
    """Whether, by dvc.lock, the study was run with the current predictor."""
    stages = locked_stages()
    fitted = [out["md5"] for out in stages.get("predictor", {}).get("outs", ())]
    read = [
        dependency.get("md5")
        for dependency in stages.get("studies@calibration", {}).get("deps", ())
        if dependency["path"] == PREDICTOR.as_posix()
    ]
    return bool(fitted) and fitted == read


def registered() -> str | None:
    """The message that `register` returned for the current files and database; None if there is none."""
    try:
        record = parse_hashed(read_file(RECORD, again=""), RECORD, again="")
        message = record.pop("message", None)
        return str(message) if message is not None and record == _state() else None
    except (
        OSError,
        InvalidInput,
    ):  # never registered, or damaged: registering again changes nothing
        return None


def _state() -> dict[str, str | int]:
    """Sizes and times of the files that a registration reads and of the database, to detect changes."""
    digest = hashlib.sha256()
    for path in (*sorted(PREDICTOR.iterdir()), *sorted(CALIBRATION.glob("*.*")), LOCK):
        if path.is_file():
            digest.update(f"{path.name} {path.stat().st_size} ".encode())
            digest.update(path.read_bytes())
    gates = read_yaml(PARAMS, again="restore it with git").get("gates", {})
    database = DATABASE.stat()
    return {
        "files": digest.hexdigest(),
        "gates": json.dumps(gates, sort_keys=True),
        # Another file when it was lost and made anew, another time when somebody moved an alias.
        "database": f"{database.st_ino} {database.st_mtime_ns}",
        "folder": str(PREDICTOR.absolute()),  # paths in the database are absolute
    }


def main() -> None:
    """Register the predictor if it is not registered; print which version it is."""
    if not PREDICTOR.is_dir():
        sys.exit(f"publish: there is no {PREDICTOR}; run dvc repro first")
    if (PREDICTOR / OUTPUTS).exists():
        sys.stdout.write(f"{UNREGISTERED}{os.linesep}")
        return
    with one_line_errors("publish"):
        message = registered() or register()
    sys.stdout.write(f"registered: {message}{os.linesep}")


if __name__ == "__main__":
    main()
