"""The snippets of docs/your-model.md run as they are."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "your-model.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs(number):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(SNIPPETS[number], f"{PAGE.name}-{number}", "exec"), {})
    assert printed.getvalue()


def test_the_page_has_its_snippets():
    assert len(SNIPPETS) == 6
