"""Paths of the pipeline's files, atomic writing of their folders, and their lineage."""

import fcntl
import json
import math
import os
import secrets
import shutil
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from modelpred.errors import InvalidInput, writing
from modelpred.sealed import read_file, refuse, seal, write_atomically
from modelpred.yaml_files import LARGEST_YAML, parse_yaml, read_yaml

if TYPE_CHECKING:
    import polars as pl


# In pipeline order. One word is the stage's name in dvc.yaml, its section in params.yaml, its flow,
# its module and its folder; `studies` has a section and a folder for each of STUDIES
# (modelpred/studies).
STAGES = ("dataset", "subsets", "targets", "predictor", "studies", "report")

ARTIFACTS = Path("artifacts")
DATASET, SUBSETS, TARGETS, PREDICTOR, STUDIES_FOLDER, REPORT = (
    ARTIFACTS / stage for stage in STAGES
)
PARAMS = Path("params.yaml")
SETTINGS = "settings.json"  # the section of params.yaml that a study ran with, in its folder


def headline_file(study: str) -> Path:
    """The few numbers of a study that `dvc metrics` compares."""
    return STUDIES_FOLDER / f"{study}.json"


def shard_store() -> str:
    """Absolute path of the shard store, or the path or fsspec URL that MODELPRED_STORE sets."""
    where = os.environ.get("MODELPRED_STORE") or ".modelpred/shards"
    return where if "://" in where else str(Path(where).absolute())


UNFINISHED = ".unfinished"


@contextmanager
def written(
    folder: Path, *, but: str | None = None, made_from: tuple[Path, ...] = ()
) -> Generator[Path]:
    """Give an empty folder that replaces `folder` at the end of the block, or is removed if it fails.

    It is sealed with the hashes of its files first, so that every reader can check what it reads.
    Files that match `but` are left out: another file of the folder lists them with their hashes.
    `made_from` are the folders that the content follows from (modelpred/sealed.py: check_inputs).

    Folders that killed processes left are removed. The kernel holds a lock on each unfinished folder
    for as long as its process runs, so those of running processes stay.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for path in folder.parent.glob(f".{folder.name}-*{UNFINISHED}"):
        _remove_if_abandoned(path)
    unfinished = folder.parent / f".{folder.name}-{secrets.token_hex(8)}{UNFINISHED}"
    # Not mkdtemp, whose mode 0700 would hide the outputs from other users: the umask decides.
    unfinished.mkdir(0o755)
    lock = os.open(unfinished, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with writing(folder):
            yield unfinished
        files = (path.name for path in unfinished.iterdir() if path.is_file())
        seal(
            unfinished,
            [name for name in files if but is None or not fnmatch(name, but)],
            made_from=[os.path.relpath(each, folder) for each in made_from],
        )
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        os.close(lock)


def _remove_if_abandoned(path: Path) -> None:
    """Remove an unfinished folder unless a running process holds its lock."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # not a folder, or removed by another process
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(lock)


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write an indented JSON file; numbers that are not finite become null."""
    text = json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"
    write_atomically(path, text.encode())


def _finite(content: object) -> object:
    if isinstance(content, Mapping):
        items = cast("Mapping[str, object]", content).items()
        return {key: _finite(value) for key, value in items}
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_table(table: "pl.DataFrame", path: Path) -> None:
    """Write a table as Parquet, and as CSV for `dvc plots`."""
    table.write_parquet(path.with_suffix(".parquet"))
    table.write_csv(path.with_suffix(".csv"))


def locked_stages(*, root: Path = Path()) -> dict[str, Any]:
    """The stages of dvc.lock by name; empty if there is no such file.

    Raises:
        InvalidInput: the file is not a lock file of DVC.
    """
    path = root / "dvc.lock"
    again = "restore it with git, or remove it and run dvc repro"
    if not os.path.lexists(path):
        return {}
    content = read_file(path, again=again, largest=LARGEST_YAML)
    try:
        stages: Any = parse_yaml(content, path.name)["stages"]
        for stage in stages.values():
            for out in (*stage.get("outs", ()), *stage.get("deps", ())):
                _ = out["path"]
    except (InvalidInput, TypeError, KeyError, AttributeError) as error:
        raise refuse(path, f"it is no lock file of DVC ({error})", again=again) from error
    return stages


def lineage(*, root: Path = Path()) -> dict[str, Any]:
    """Origin of the predictor: the git commit, and the hashes of data and params in dvc.lock.

    The commit ends in `-dirty` if tracked files other than dvc.lock differ from it.
    """
    commit = _git("rev-parse", "HEAD", root=root)
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock", root=root
    )
    stages = locked_stages(root=root)
    outputs = [out for stage in STAGES[:4] for out in stages.get(stage, {}).get("outs", ())]
    return {
        "git_commit": f"{commit}-dirty" if changed else commit or None,
        "dvc": {out["path"]: out["md5"] for out in outputs},
        "params": _params(stages, read_yaml(root / PARAMS, again="restore it with git")),
    }


def _params(stages: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The params of the stages from dvc.lock; from params.yaml for a stage that has not run."""
    return {
        section: stages.get(section, {}).get("params", {}).get(PARAMS.name, {}).get(section)
        or now.get(section, {})
        for section in STAGES[:4]
    }


def is_revision(name: str, *, root: Path = Path()) -> bool:
    """Whether the name is a git revision."""
    return bool(_git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", root=root))


def _git(*arguments: str, root: Path) -> str:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or not a repository
        return ""
    return answer.stdout.strip()
