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
