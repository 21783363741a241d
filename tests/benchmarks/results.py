"""RESULTS.md, where every benchmark replaces its own section and leaves the others alone."""

from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def write_section(text: str) -> None:
    """Put the section, whose first line is its heading, in the place of its last, or at the end."""
    heading = text.partition("\n")[0] + "\n"
    head, _, rest = RESULTS.read_text(encoding="utf-8").partition(heading)
    _, mark, later = rest.partition("\n## ")
    whole = head.rstrip() + "\n\n" + text + (mark + later if mark else "")
    RESULTS.write_text(whole, encoding="utf-8")


def read_section(heading: str) -> str:
    """The section as it stands, heading included; the heading alone where there is none yet."""
    _, found, rest = RESULTS.read_text(encoding="utf-8").partition(heading + "\n")
    return heading + "\n" + (rest.partition("\n## ")[0] if found else "")


def write_part(
    heading: str,
    title: str,
    lines: list[str],
    *,
    introduction: str | None = None,
    replaces: str | None = None,
) -> None:
    """Put a part into a section, in the place of its last, or at the section's end.

    Args:
        heading: of the section.
        title: of the part.
        lines: what stands under it.
        introduction: of the section; default: as it stands.
        replaces: what the title of the part that goes begins with; default: the same title.
    """
    head, *parts = read_section(heading).split("\n### ")
    if introduction is not None:
        head = f"{heading}\n\n{introduction}\n"
    part = "\n".join([title, "", *lines])
    going = f"{title}\n" if replaces is None else replaces
    at = next((i for i, other in enumerate(parts) if other.startswith(going)), len(parts))
    parts[at : at + 1] = [part]
    write_section("\n\n### ".join(text.rstrip() for text in [head, *parts]) + "\n")
