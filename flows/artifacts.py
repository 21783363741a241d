"""Where the pipeline's files lie, how a folder of them is written, and where they came from."""

import json
import math
import os
import shutil
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil
import yaml

if TYPE_CHECKING:
    import polars as pl


# In pipeline order. One word is the stage's name in dvc.yaml, its section in params.yaml, its flow,
# its module and its folder; `studies` has a section and a folder for each study.
STAGES = ("dataset", "subsets", "targets", "predictor", "studies", "report")
STUDIES = (
    *("edits", "lds", "valuation", "labels", "selection"),
    *("memorization", "calibration", "attribution"),
)

ARTIFACTS = Path("artifacts")
DATASET, SUBSETS, TARGETS, PREDICTOR, STUDIES_FOLDER, REPORT = (
    ARTIFACTS / stage for stage in STAGES
)
PARAMS = Path("params.yaml")


def shard_store() -> str:
    """The folder of finished shards, absolute.

    MODELPRED_STORE names another, or a URL that fsspec knows, for instance of a shared one.
    """
    where = os.environ.get("MODELPRED_STORE") or ".modelpred/shards"
    return where if "://" in where else str(Path(where).absolute())


@contextmanager
def written(folder: Path) -> Generator[Path]:
    """A folder to write into that becomes `folder` at the end, or nothing if the block fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}-*"):  # of a process that was killed
        if not psutil.pid_exists(int(left.name.rpartition("-")[2])):
            shutil.rmtree(left)
    unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
    unfinished.mkdir()
    try:
        yield unfinished
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Writes a JSON file that reads well in a diff; a number that is not finite becomes null."""
    path.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _finite(content: object) -> object:
    if isinstance(content, Mapping):
        items = cast("Mapping[str, object]", content).items()
        return {key: _finite(value) for key, value in items}
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_table(table: "pl.DataFrame", path: Path) -> None:
    """Writes a table twice: as Parquet for programs, as CSV for `dvc plots`."""
    table.write_parquet(path.with_suffix(".parquet"))
    table.write_csv(path.with_suffix(".csv"))


def lineage(*, root: Path = Path()) -> dict[str, Any]:
    """What made the predictor: the git commit, and the hashes of the data and the params in dvc.lock.

    The commit ends in `-dirty` where tracked files differ from it; dvc.lock does while stages run.
    """
    commit = _git("rev-parse", "HEAD", root=root)
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock", root=root
    )
    lock = root / "dvc.lock"
    stages = yaml.safe_load(lock.read_text())["stages"] if lock.is_file() else {}
    outputs = [out for stage in STAGES[:4] for out in stages.get(stage, {}).get("outs", ())]
    return {
        "git_commit": f"{commit}-dirty" if changed else commit or None,
        "dvc": {out["path"]: out["md5"] for out in outputs},
        "params": _params(stages, yaml.safe_load((root / PARAMS).read_text())),
    }


def _params(stages: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The params that the stages ran with, as dvc.lock records them; those of the file for a stage that has not run."""
    return {
        section: stages.get(section, {}).get("params", {}).get(PARAMS.name, {}).get(section)
        or now.get(section, {})
        for section in STAGES[:4]
    }


def is_revision(name: str, *, root: Path = Path()) -> bool:
    """Whether git knows a commit by that name."""
    return bool(_git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", root=root))


def _git(*arguments: str, root: Path) -> str:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or not a repository
        return ""
    return answer.stdout.strip()
