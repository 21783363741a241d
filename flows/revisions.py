"""Copies the artifacts of a git revision from DVC's cache or remote, without checking it out.

A revision is a tag, a branch or a commit. `workspace` is the working copy, as in DVC.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from flows.artifacts import ARTIFACTS, is_revision
from modelpred.errors import InvalidInput
from modelpred.sealed import advice

WORKSPACE = "workspace"


def advice_at(revision: str) -> AbstractContextManager[None]:
    """In the block, errors of files name the revision, whose files lie in DVC's cache."""
    if revision == WORKSPACE:
        return nullcontext()
    return advice(f"it is that of {revision} in DVC's cache or remote; reproduce it there")


def fetch(revision: str, stages: tuple[Path, ...], *, into: Path) -> Path:
    """The folder with the outputs of these stages at a revision.

    Args:
        revision: a tag, branch or commit, or `workspace`.
        stages: folders of artifacts/.
        into: the folder to copy to; not used for the working copy.

    Raises:
        InvalidInput: there is no such revision, or its data is neither in the cache nor in a remote.
    """
    if revision == WORKSPACE:
        for folder in stages:
            if not folder.is_dir():
                raise InvalidInput(f"{WORKSPACE}: there is no {folder}; run dvc repro first")
        return ARTIFACTS
    if not is_revision(revision):
        raise InvalidInput(f"{revision}: git has no such revision; git tag lists the tagged ones")
    # Imported late: takes half a second.
    from dvc.api import DVCFileSystem  # noqa: PLC0415 # pyright: ignore[reportPrivateUsage]
    from dvc.exceptions import DvcException  # noqa: PLC0415
    from dvc.scm import SCMError  # noqa: PLC0415
    from dvc_data.index import DataIndexDirError  # noqa: PLC0415

    try:
        tree = DVCFileSystem(rev=revision)
        for folder in stages:
            if not tree.exists(str(folder)):
                raise InvalidInput(
                    f"{revision}: its dvc.lock holds no {folder}; commit it after dvc repro"
                )
            tree.get(str(folder), str(into / folder.name), recursive=True)
    except (DvcException, SCMError, DataIndexDirError, OSError) as error:
        # DVC's error names the folder, its cause names the missing file.

        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        raise InvalidInput(
            f"{revision}: its data cannot be read ({reason}); dvc push where it was made, or "
            "reproduce it"
        ) from error
    return into
