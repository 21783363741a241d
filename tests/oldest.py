"""Prints constraints to the oldest versions that pyproject.toml allows: `make test-oldest`.

Arguments replace the constraint of the same package: `python tests/oldest.py torch==2.13.0`.
"""

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

# A requirement of the form name[extras]>=version.
LOWEST = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=(?P<version>[0-9.]+)")


def requirements(project: dict) -> list[str]:
    """All direct requirements: those of the library and those of its extras."""
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(each for extra in extras for each in extra)]


def oldest(project: dict, *, given: Sequence[str] = ()) -> list[str]:
    """`name==version` for each direct requirement that has a lowest version, sorted; `given` ones as given."""
    found = [LOWEST.match(requirement) for requirement in requirements(project)]
    versions = {match["name"]: _releases(match["version"]) for match in found if match}
    versions |= dict(each.split("==") for each in given)
    return sorted(f"{name}=={version}" for name, version in versions.items())


def _releases(version: str) -> str:
    """The newest fix of that minor version, as a constraint; a version that names a fix as it is."""
    parts = version.split(".")
    return version if len(parts) > 2 else ".".join([*parts, *["0"] * (2 - len(parts)), "*"])


if __name__ == "__main__":
    content = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    sys.stdout.write("\n".join(oldest(content["project"], given=sys.argv[1:])) + "\n")
