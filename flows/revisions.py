"""What DVC holds of a revision, copied out of its cache or remote; nothing is checked out.

A revision is whatever git knows by a name: a tag, a branch, a commit. `workspace` is the working
copy, as DVC calls it.
"""

from pathlib import Path

from flows.artifacts import ARTIFACTS, is_revision
from modelpred.errors import InvalidInput

WORKSPACE = "workspace"


def fetch(revision: str, stages: tuple[Path, ...], *, into: Path) -> Path:
    """The folder that holds these stages' outputs as they were at that revision.

    Args:
        revision: a name that git knows, or `workspace`.
        stages: folders of artifacts/.
        into: where copies go; those of the working copy stay where they are.

    Raises:
        InvalidInput: no such revision, or its data is neither in the cache nor in a remote.
    """
    if revision == WORKSPACE:
        for folder in stages:
            if not folder.is_dir():
                raise InvalidInput(f"{WORKSPACE}: there is no {folder}; run dvc repro first")
        return ARTIFACTS
    if not is_revision(revision):
        raise InvalidInput(
            f"{revision}: git knows no such revision; git tag lists those with names"
        )
    # Half a second to import, which only who asks for a revision pays.
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
        # DVC says which folder, and what lies below says which file is nowhere.
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        raise InvalidInput(
            f"{revision}: its data cannot be read ({reason}); dvc push where it was made, or "
            "reproduce it"
        ) from error
    return into
