"""The predictor's files become a registered version, once: `python -m flows.publish`.

The registry can be lost and rebuilt by this command at any time: everything comes from artifacts/.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from flows.artifacts import DATASET, PARAMS, PREDICTOR, lineage, write_json

RECORD = Path(".modelpred/published.json")
DATABASE = Path("mlflow.db")


def register() -> str:
    """Registers what artifacts/predictor holds, if it is not yet; says which version it is."""
    # Imported here, and MLflow later still: a run that changes nothing does not wait for them.
    import polars as pl  # noqa: PLC0415

    from modelpred import registry  # noqa: PLC0415
    from modelpred.dataset import read_dataset  # noqa: PLC0415
    from modelpred.params import read_params  # noqa: PLC0415

    dataset = read_dataset(DATASET)
    version = registry.publish(
        PREDICTOR,
        dataset_name=dataset.name,
        metrics=registry.held_out_errors(pl.read_parquet(PREDICTOR / "fidelity.parquet")),
        lineage=registry.Lineage.model_validate(
            {**lineage(), "dataset_fingerprint": dataset.fingerprint}
        ),
        gates=read_params(PARAMS).gates,
        root=Path(),
    )
    told = f"{version.name} version {version.version} ({', '.join(version.aliases) or 'no alias'})"
    if version.reasons:
        told += f": {'; '.join(version.reasons)}"
    RECORD.parent.mkdir(exist_ok=True)
    write_json({**_state(), "told": told}, RECORD)
    return told


def registered() -> str | None:
    """What `register` said about these very files and this very database; None if it never did."""
    try:
        record = json.loads(RECORD.read_text())
        told: str = record.pop("told")
        return told if record == _state() else None
    except (OSError, ValueError, KeyError):
        return None


def _state() -> dict[str, str | int]:
    """What a registration follows from, cheap to compare: the predictor's files and the database."""
    digest = hashlib.sha256()
    for path in sorted(PREDICTOR.iterdir()):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        digest.update(path.read_bytes())
    return {
        "files": digest.hexdigest(),
        "database": DATABASE.stat().st_ino,  # another file when it was lost and made anew
        "folder": str(PREDICTOR.absolute()),  # paths in the database are absolute
    }


def main() -> None:
    """Registers what is not registered and says what is there."""
    if not PREDICTOR.is_dir():
        sys.exit(f"publish: there is no {PREDICTOR}; run dvc repro first")
    told = registered()
    if told is None:
        from modelpred.dataset import InvalidInput  # noqa: PLC0415

        try:
            told = register()
        except InvalidInput as error:
            sys.exit(f"publish: {error}")
    sys.stdout.write(f"registered: {told}{os.linesep}")


if __name__ == "__main__":
    main()
