"""The answers of a run in ten lines, as text; as JSON with the rows behind them.

title            the table, and how good the model is
rows             how many train and test, and why others are not used
wrong labels     two lines: how many, and the most suspicious
values of rows   two lines: how many help and hurt, and which most
worst rows       what the model is without them
probabilities    whether they can be trusted
report           the path of the page with everything
page             the command that opens the live page
"""

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelpred.errors import InvalidInput
from modelpred.sealed import check_inputs, read_json, refuse, remake
from modelpred.wording import one_line

WIDTH = 110  # answers with long names of the user's own end in dots


@dataclass(frozen=True)
class Answered:
    """A question and its answer in words.

    Attributes:
        question: as a user asks it.
        words: the answer.
        topic: the question in one or two words.
        brief: the answer in one line, and in a second line the rows that it names.
        items: rows and numbers that support it, as names and words.
        note: how certain it is.
    """

    question: str
    words: str
    topic: str
    brief: tuple[str, ...]
    items: tuple[tuple[str, str], ...]
    note: str


@dataclass(frozen=True)
class RunSummary:
    """What a run found.

    Attributes:
        title: the table, how good the model is, and how many labels look wrong.
        rows: how many rows are used and why others are not.
        answers: to the four questions of the report.
        report: path of the report.
        explore: the command that opens the live page.
    """

    title: str
    rows: str
    answers: tuple[Answered, ...]
    report: str
    explore: str

    def __str__(self) -> str:
        answers = [
            (answer.topic if not at else "", one_line(line, most=WIDTH))
            for answer in self.answers
            for at, line in enumerate(answer.brief)
        ]
        parts = [("rows", self.rows), *answers, ("report", self.report), ("page", self.explore)]
        width = max(len(topic) for topic, _ in parts)
        lines = [f"{topic:<{width}}  {words}" for topic, words in parts]
        return "\n".join([one_line(self.title, most=WIDTH), *lines])

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
    explore = "modelpred explore"
    if project != Path():
        explore += f" {shlex.quote(str(project))}"
    try:
        answers = tuple(answer_of(answer) for answer in content["answers"])
        return RunSummary(str(content["title"]), str(content["rows"]), answers, str(page), explore)
    except (KeyError, TypeError, AttributeError) as error:
        raise refuse(path, f"it holds no answers ({error!r})", again=remake("report")) from error


def answer_of(answer: dict[str, Any]) -> Answered:
    """The answer that `flows.report` wrote as JSON."""
    return Answered(
        question=str(answer["question"]),
        words=str(answer["words"]),
        topic=str(answer["topic"]),
        brief=tuple(str(line) for line in answer["brief"]),
        items=tuple((str(item["name"]), str(item["words"])) for item in answer["items"]),
        note=str(answer["note"]),
    )
