"""Names of rows, versions and columns are shown as they are: no sign of theirs is markup."""

import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import polars as pl
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from flows.versions import Comparison, summary
from modelpred.cli import app
from modelpred.progress import progress_bar
from modelpred.report.versions import write_figure
from modelpred.studies.versions import Drift
from modelpred.wording import cell_words, markdown, one_line

RENDER = MarkdownIt("commonmark").enable("table")
pieces = st.sampled_from(
    [
        *"$\\_^{}|*`#<>&[]()!~:-+.=/ \"'a1é漢\n\r\t\0\u2028\u202e",
        *("\x1b[31m", "$\\foo$", "$5_ to $6_", "<b>", "&amp;", "[/x]", "[red]"),
        *("1. ", "---", "](x)", "-->", "\\$"),
    ]
)
names = st.lists(pieces, max_size=6).map("".join)


class Page:
    """Every tag of a rendered page, and the text of its cells."""

    def __init__(self, html):
        root = ET.fromstring(f"<page>{html}</page>")
        self.tags = {part.tag for part in root.iter()} - {"page"}
        self.cells = ["".join(c.itertext()).strip() for c in root.iter() if c.tag in ("td", "th")]


@given(names)
@settings(max_examples=100, deadline=None)
def test_markdown_renders_to_the_text_in_a_cell_and_in_a_heading(name):
    cell = Page(RENDER.render(f"| x |\n| --- |\n| {markdown(name)} |"))
    assert cell.cells == ["x", one_line(name).strip()]
    assert cell.tags <= {"table", "thead", "tbody", "tr", "th", "td"}
    heading = RENDER.render(f"# over {markdown(name)}")
    assert Page(heading).tags == {"h1"}


def comparison(versions, rows):
    before, after = versions
    drifted = Drift(before, after, rows.height, None, rows)
    scores = pl.DataFrame(
        {
            "model_of": [before, after],
            "test_rows_of": [before, after],
            "loss": [1.0, 2.0],
            "exact_loss": [1.0, 2.0],
        }
    )
    changes = pl.DataFrame({"before": [before], "after": [after], "change": ["went"]})
    numbers = {name: {"loss": 1.0} for name in versions}
    return Comparison(tuple(versions), {}, numbers, scores, changes, (drifted,))


versions_and_rows = st.tuples(
    st.lists(names.filter(str.strip), min_size=2, max_size=2, unique=True),
    st.lists(names, min_size=3, max_size=3, unique=True),
)


def drawn(drawn_names):
    versions, ids = drawn_names
    rows = pl.DataFrame(
        {"row_id": ids, "before": [0.1, 0.2, 0.3], "after": [0.3, 0.2, 0.1], "move": [0.2, 0, 0.2]}
    )
    return comparison(versions, rows)


@given(versions_and_rows)
@settings(max_examples=50, deadline=None)
def test_the_summary_of_versions_has_a_row_for_each_row(drawn_names):
    found = drawn(drawn_names)
    page = Page(RENDER.render(summary("valuation", found)))
    for name in drawn_names[1]:
        assert one_line(name).strip() in page.cells
    assert len(page.cells) >= 4 * 3 + 4 * 4
    assert page.tags <= {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}


@given(versions_and_rows)
@settings(max_examples=12, deadline=None)
@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.filterwarnings("ignore:constrained_layout")
def test_a_figure_is_drawn_whatever_rows_and_versions_are_called(drawn_names):
    found = drawn(drawn_names)
    with tempfile.TemporaryDirectory() as place:
        write_figure(found.scores, found.drifts, Path(place), value="value")
        ET.parse(Path(place) / "versions.svg")
        assert (Path(place) / "versions.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["[/x]", "v[red]1", "[bold]", "$a$ [link=x]y"])
def test_progress_shows_words_in_brackets(capsys, monkeypatch, name):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # elsewhere nothing is shown
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar(name) as progress:
        progress(1, 2, "")
    assert name in capsys.readouterr().err
    with progress_bar() as progress:
        progress(1, 2, name)
    assert name in capsys.readouterr().err


def commands(command, path=()):
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


@pytest.mark.parametrize(
    ("path", "command"),
    [pytest.param(*each, id=" ".join(each[0])) for each in commands(typer.main.get_command(app))],
)
def test_help_shows_every_word_that_is_written(path, command: click.Command):
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0, result.output
    shown = result.stdout.split()
    assert [word for word in (command.help or "").split() if word not in shown] == []


@given(st.integers(), st.dates())
@settings(max_examples=50)
def test_whole_numbers_and_days_keep_their_digits(number, day):
    assert int(cell_words(number)) == number
    assert cell_words(day) == day.isoformat()
