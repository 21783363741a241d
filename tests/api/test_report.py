"""The report of a fit in memory is the pipeline's page, with the studies' defaults changed where asked."""

import numpy as np
import pytest

from modelpred import InvalidInput, ModelPred
from modelpred.studies import STUDIES
from tests.studies.small import SMALL


@pytest.fixture(scope="module")
def fitted() -> ModelPred:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 3))
    labels = np.where(rows @ [1.0, -1.0, 0.5] + rng.normal(size=60) > 0, "yes", "no")
    mp = ModelPred(subsets=100, progress=False)
    return mp.fit(rows[:40], labels[:40], test=(rows[40:], labels[40:]))


def test_the_page_has_the_answers_and_every_study(fitted: ModelPred, tmp_path):
    page = fitted.report(tmp_path, rows=3, **SMALL)
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "index.html"
    assert "Which labels look wrong?" in text
    assert "The 3 most valuable rows" in text
    assert "Not answered" not in text
    assert "This study was not run" not in text
    for name, study in STUDIES.items():
        if name not in ("edits", "lds"):
            assert f'<section id="{name}">\n<h2>{study["title"]}</h2>' in text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"valuations": {}}, "unknown study 'valuations'; known: edits, lds"),
        ({"valuation": {"permutation": 4}}, "valuation.permutation: Extra inputs"),
        (
            {"valuation": {"permutations": 3}},
            "valuation.permutations: Input should be a multiple of 2",
        ),
        ({"rows": 0}, "rows"),
    ],
)
def test_unknown_settings_are_refused_before_any_work(
    fitted: ModelPred, tmp_path, settings, expected
):
    with pytest.raises(InvalidInput, match=expected):
        fitted.report(tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_a_fit_without_test_rows_has_no_report(tmp_path):
    rows = np.arange(20.0)[:, None]
    mp = ModelPred(subsets=20, progress=False).fit(rows, rows[:, 0] > 8)
    with pytest.raises(InvalidInput, match="needs test rows: pass fit"):
        mp.report(tmp_path)
