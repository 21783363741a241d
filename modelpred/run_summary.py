"""The answers of a run in about ten lines, as text or as JSON."""

import json
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelpred.errors import InvalidInput
from modelpred.sealed import check_inputs, read_json, refuse, remake
from modelpred.wording import one_line

SHOWN_ITEMS = 2
WIDTH = 110
INDENT = "   "


@dataclass(frozen=True)
class Answered:
    """A question and its answer in words.

    Attributes:
        question: as a user asks it.
        words: the answer.
        items: rows and numbers that support it, as names and words.
        note: how certain it is.
    """

    question: str
    words: str
    items: tuple[tuple[str, str], ...]
    note: str


@dataclass(frozen=True)
class RunSummary:
    """What a run found.

    Attributes:
        title: the table, how good the model is, and how many labels look wrong.
        rows: how many rows are used and why others are not; empty if all are used.
        answers: to the four questions of the report.
        report: path of the report.
    """

    title: str
    rows: str
    answers: tuple[Answered, ...]
    report: str

    def __str__(self) -> str:
        lines = [self.title, *textwrap.wrap(self.rows, WIDTH, subsequent_indent=INDENT)]
        for answer in self.answers:
            lines += textwrap.wrap(
                f"{answer.question} {answer.words}", WIDTH, subsequent_indent=INDENT
            )
            lines += [
                f"{INDENT}{one_line(f'{n}: {w}', most=WIDTH)}"
                for n, w in answer.items[:SHOWN_ITEMS]
            ]
        return "\n".join([*lines, f"Report: {self.report}"])

    def as_json(self) -> str:
        """The summary as a JSON object."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def read_summary(project: Path) -> RunSummary:
    """The summary of the project's last run.

    Raises:
        InvalidInput: there is no report, or it is damaged.
    """
    folder = project / "artifacts" / "report"
    page = folder / "index.html"
    if not page.is_file():
        raise InvalidInput(f"{page} is missing; run the pipeline first with: modelpred run")
    check_inputs(folder, again=remake("report"))
    path = folder / "answers.json"
    content = read_json(path, again=remake("report"))
    try:
        answers = tuple(_answered(answer) for answer in content["answers"])
        return RunSummary(str(content["title"]), str(content.get("rows") or ""), answers, str(page))
    except (KeyError, TypeError, AttributeError) as error:
        raise refuse(path, f"it holds no answers ({error!r})", again=remake("report")) from error


def _answered(answer: dict[str, Any]) -> Answered:
    items = tuple((str(item["name"]), str(item["words"])) for item in answer["items"])
    return Answered(str(answer["question"]), str(answer["words"]), items, str(answer["note"]))
