"""A copy of the project as a user has it after cloning, with params so small that stages take seconds."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from modelpred.params import Params

ROOT = Path(__file__).parents[1]
COPIED = ("flows", "modelpred", "data", "models", ".dvc/config", ".dvcignore", ".gitignore")


def iris_params(
    *,
    fit: int,
    held_out: int,
    block: int,
    epochs: int,
    deletions: int = 0,
    error: float | None = None,
) -> dict[str, Any]:
    """Params of logistic regression on iris with few subsets.

    Args:
        fit: number of subsets to fit the predictor.
        held_out: number of subsets for the validation, and for the test.
        block: subsets in a shard.
        epochs: of the fit.
        deletions: number of deletions for the test.
        error: largest error of a champion; default: any.
    """
    test = {"uniform": held_out, **({"deletion": deletions} if deletions else {})}
    counts = {"validation": {"uniform": held_out}, "test": test}
    return {
        "dataset": {"source": "iris", "watch": "data"},
        "subsets": {"fit": {"uniform": fit}, **counts, "block": block},
        "targets": {"model": "logistic"},
        "predictor": {"epochs": epochs},
        "gates": {"parameter_error": error, "beats": [], "calibration": None},
    }


def small_project(
    place: Path, params: dict[str, Any], *, stages: tuple[str, ...] | None = None
) -> Path:
    """The folder, with the code, these params and one commit of git.

    Args:
        place: where; it may exist.
        params: params.yaml; keys and sections that it lacks are written with their defaults, because
            DVC wants every key that dvc.yaml lists.
        stages: of dvc.yaml, those to keep; default: dvc.yaml as it is.
    """
    for name in (*COPIED, *(() if stages else ("dvc.yaml",))):
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    if stages:
        graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())
        kept = {"vars": graph["vars"], "stages": {name: graph["stages"][name] for name in stages}}
        (place / "dvc.yaml").write_text(yaml.safe_dump(kept, sort_keys=False))
    write_params(place, params)
    for command in ("init", "add .", "-c user.name=t -c user.email=t@example.org commit -m small"):
        subprocess.run(["git", *command.split()], cwd=place, check=True, capture_output=True)
    return place


def write_params(place: Path, params: dict[str, Any]) -> None:
    """Write params.yaml with the defaults of all keys that `params` lacks."""
    filled = {
        name: {**section, **params.get(name, {})}
        for name, section in Params().model_dump(mode="json").items()
    }
    (place / "params.yaml").write_text(yaml.safe_dump(filled, sort_keys=False))
