"""Packages that only some uses need, and the extra of the installation that brings each.

The library installs without them. Code that needs one imports it inside `optional_imports`, so that a
missing package ends in one line with the command that installs it.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from importlib.util import find_spec

from modelpred.errors import InvalidInput

# Top-level modules by extra, in the order in which a message prefers them.
EXTRAS = {
    "pipeline": (
        *("prefect", "dvc", "mlflow"),
        *("fastapi", "sqlalchemy"),
    ),
    "page": ("fastapi", "starlette", "uvicorn"),
    "openml": ("pandas",),
    "dask": ("prefect_dask", "dask"),
    "ray": ("prefect_ray", "ray"),
    "s3": ("s3fs",),
}
EXTRA_OF = {module: extra for extra, modules in EXTRAS.items() for module in modules}


class MissingExtra(InvalidInput, ImportError):  # noqa: N818 - as InvalidInput
    """A package that an extra brings is not installed; the message says how to install it."""


@contextmanager
def optional_imports() -> Generator[None]:
    """Imports inside may fail: a missing package of an extra raises MissingExtra.

    Raises:
        MissingExtra: a package is not installed; one that no extra brings raises as usual.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRA_OF:
            raise
        raise MissingExtra(_message([module])) from error


def require(modules: Iterable[str]) -> None:
    """Check that these modules are installed, without importing them.

    Raises:
        MissingExtra: some are not.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtra(_message(missing))


def _message(missing: list[str]) -> str:
    extras = ",".join(dict.fromkeys(EXTRA_OF[module] for module in missing))
    verb = "is" if len(missing) == 1 else "are"
    return (
        f"{', '.join(missing)} {verb} not installed; install what this needs: "
        f"pip install 'modelpred[{extras}]'"
    )
