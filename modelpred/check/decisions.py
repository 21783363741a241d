"""What is decided about a table where the user says nothing, and the option that changes each decision.

A column whose cells name the rows becomes the row id: different texts in every row, or different whole
numbers in a column whose name says that it holds ids. Other columns that cannot be used are left out.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from modelpred.dataset.config import AUTO, DatasetConfig
from modelpred.dataset.csv_files import read_header
from modelpred.dataset.holding_out import TEST_SHARE
from modelpred.dataset.own import OwnTable, own_table
from modelpred.dataset.places import CSV_ENDINGS
from modelpred.dataset.reading import open_table
from modelpred.dataset.sources import files_read
from modelpred.dataset.usage import without_label
from modelpred.errors import InvalidInput
from modelpred.wording import one_line

ROW_IDS = "--row-id"
ROW_ID = "row_id"  # the name that tables of rows give to the ids; no feature can have it
ID_NAME = re.compile(
    r"(^|_)(ids?|key|uuid|guid|index|idx|nr|no|num|number|code|row|ref|serial)($|_)"
)


class Decision(NamedTuple):
    """One decision.

    Attributes:
        about: what is decided, in a few words.
        choice: what was chosen, and why.
        option: the options of the command that change it.
    """

    about: str
    choice: str
    option: str


@dataclass(frozen=True)
class Decided:
    """A table as the pipeline will read it.

    Attributes:
        config: the config with everything decided.
        own: the table without columns that cannot be used.
        decisions: what was decided about the table.
        problems: one line for each column that cannot be used.
    """

    config: DatasetConfig
    own: OwnTable
    decisions: tuple[Decision, ...]
    problems: tuple[str, ...]


def decide(config: DatasetConfig) -> Decided:
    """Decide how to read the table of a config.

    Raises:
        InvalidInput: the table cannot be read, or no column is left to predict from.
    """
    config, decisions = _with_header(config)
    own = own_table(config)
    problems = dict(zip(own.inspection.refused, own.inspection.problems, strict=True))
    if config.row_id is None and (found := _id_column(own.inspection.ids, problems)):
        config = config.model_copy(update={"row_id": found})
        decisions.append(Decision("row ids", f"column {found!r}, different in every row", ROW_IDS))
        del problems[found]
    if own.inspection.refused:
        config = config.model_copy(update={"drop": (*config.drop, *problems)})
        own = own_table(config)
    label = own.table.label
    if not own.table.feature_names:
        raise InvalidInput(
            "; ".join(
                [
                    f"{config.source} has no column to predict {label!r} from; add columns with features",
                    *problems.values(),
                ]
            )
        )
    config = config.model_copy(update={"label": label})
    decisions += _about_rows(own, config)
    decisions += [
        Decision("left out", _short(line, config), "--drop, --categories, --dates")
        for line in problems.values()
    ]
    decisions += [
        Decision("left out", _short(line, config), "--drop") for line in own.inspection.notes
    ]
    # Dropped, so that the stage `dataset` does not say the same again.
    config = config.model_copy(update={"drop": (*config.drop, *own.inspection.left_out)})
    return Decided(config, own, tuple(decisions), tuple(problems.values()))


def _with_header(config: DatasetConfig) -> tuple[DatasetConfig, list[Decision]]:
    """The config with what the header of a CSV shows: the delimiter, and ids under the usual name."""
    columns, decisions = tuple[str, ...](), list[Decision]()
    for path in files_read(config)[:1]:
        if not path.name.lower().endswith(CSV_ENDINGS):
            columns = open_table(str(path), delimiter=",").columns
            continue
        delimiter, columns = read_header(path, config.delimiter)
        if delimiter not in (config.delimiter, "\t"):
            decisions.append(Decision("delimiter", repr(delimiter), "--delimiter"))
        if not path.name.lower().endswith((".tsv", ".tsv.gz")):
            config = config.model_copy(update={"delimiter": delimiter})
    if config.row_id is None and ROW_ID in columns and ROW_ID not in config.drop:
        config = config.model_copy(update={"row_id": ROW_ID})
        decisions.append(Decision("row ids", f"column {ROW_ID!r}", ROW_IDS))
    return config, decisions


def _id_column(names: tuple[str, ...], problems: Mapping[str, str]) -> str | None:
    """The column that names the rows; None if there is none."""
    named = [name for name in names if is_id_name(name)]
    texts = [name for name in names if re.search("different (texts|whole)", problems[name])]
    return next(iter([*named, *texts]), None)


def is_id_name(name: str) -> bool:
    """Whether the name of a column says that it holds ids, such as `customerId` or `order no.`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return ID_NAME.search(re.sub(r"\W+", "_", words).lower()) is not None


def _about_rows(own: OwnTable, config: DatasetConfig) -> Iterator[Decision]:
    used = len(own.table.rows)
    labelled = " that have a label" if own.table.unlabelled else ""
    words = (
        f"all {used:,}{labelled}"
        if used == own.rows
        else f"{used:,} of {own.rows:,}, drawn by class"
    )
    if own.table.unlabelled:
        yield Decision("rows", without_label(own.table.unlabelled), "fill them in the file")
    yield Decision("rows", words, "--max-points" if used == own.rows else "--max-points, --minutes")
    share = "column" if isinstance(config.test, str) and config.test != AUTO else ""
    if config.test == AUTO or isinstance(config.test, float):
        part = TEST_SHARE if config.test == AUTO else float(config.test)
        unit = f"groups of {config.group}" if config.group else "rows"
        share = f"{part:.0%} of the {unit}" + (" of each class" if own.table.classes else "")
        share = share if not config.group else f"{part:.0%} of the {unit}"
    yield Decision("test rows", share or f"{config.test}", "--test, --group")


def _short(line: str, config: DatasetConfig) -> str:
    """The line without the file's name and without the advice for params.yaml."""
    words = line.removeprefix(f"{config.source}: ").removesuffix("; left out")
    return one_line(words.partition("; drop it (dataset.drop)")[0])
