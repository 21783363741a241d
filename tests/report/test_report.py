"""The page says what the numbers say, holds all it needs, and cannot be broken by names or gaps."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from modelpred.dataset import grouping
from modelpred.report import ReportConfig, ReportInputs, write_report
from modelpred.report.blocks import Table, Text
from modelpred.report.fidelity import verdicts
from modelpred.report.methods import COLOURS
from modelpred.report.page import trust_section
from modelpred.report.valuation import valuation_blocks
from modelpred.studies.results import StudyResult

NASTY = "<script>alert('x')</script> & \"quoted\" {{ 7 * 7 }}"


class Page(HTMLParser):
    """Elements with their attributes, and the text that a reader sees."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Keep the element."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        """Keep the text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of that name."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="session")
def html(example: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(example, tmp_path_factory.mktemp("report")).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    return Page(html)


def test_the_same_inputs_give_the_same_bytes(example: ReportInputs, html: str, tmp_path: Path):
    assert write_report(example, tmp_path).read_text(encoding="utf-8") == html
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_the_answers_come_first_and_the_methods_last(page: Page):
    place = 0
    for words in (
        "Which labels look wrong?",
        "Which rows help, and which hurt?",
        "What happens without the worst rows?",
        "Can I trust the probabilities?",
        "Values: rows that help",
        "How far to trust the predictions",
        "Every method on every kind of held-out subset",
    ):
        place = page.text.index(words, place)


def test_the_page_asks_for_nothing_and_is_small(html: str, page: Page):
    for tag in ("script", "link", "img", "iframe", "object"):
        assert not page.all(tag)
    for _, attributes in page.elements:
        for name in ("href", "src", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import", html)
    assert len(html.encode()) < 1_000_000


def test_every_reference_inside_the_page_has_one_target(html: str, page: Page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", html)) <= set(ids)


def test_those_who_do_not_see_get_the_same(page: Page):
    drawings = [a for _, a in page.elements if a.get("role") == "img"]
    assert len(drawings) >= 10
    assert all(len(attributes["aria-label"] or "") > 30 for attributes in drawings)
    assert all(attributes.get("aria-hidden") == "true" for attributes in page.all("svg"))
    assert all(attributes.get("scope") in {"col", "row"} for attributes in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))


def test_figures_follow_the_colours_of_the_page(html: str):
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "var(--predictor)" in drawings
    assert not re.search(r"(fill|stroke): ?#", drawings)


def _luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(first: str, second: str) -> float:
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("index", "ground"), [(0, "#fdfcfa"), (1, "#14171b")])
def test_contrast_is_enough_on_both_grounds(html: str, index: int, ground: str):
    """WCAG 2.2: 4.5 for text, 3 for marks; grid lines only guide the eye."""
    assert f"--ground: {ground}" in html
    for name, pair in COLOURS.items():
        if name != "grid":
            least = 4.5 if name in {"ink", "muted"} else 3
            assert _contrast(pair[index], ground) >= least, name


def test_names_from_data_stay_text(nasty, tmp_path: Path):
    text = write_report(nasty(NASTY), tmp_path).read_text(encoding="utf-8")
    assert "<script" not in text
    assert NASTY in Page(text).text
    assert not Page(text).all("script")


def test_the_verdict_follows_the_intervals(example: ReportInputs):
    def verdict(low: float, high: float):
        ours = pl.col("method") == "predictor"
        newton = pl.col("method") == "newton_step"
        table = example.fidelity.filter(design="uniform").with_columns(
            parameter_error=pl.when(ours).then(0.2).when(newton).then(0.1).otherwise(0.9),
            parameter_error_low=pl.when(ours).then(low).when(newton).then(0.09).otherwise(0.8),
            parameter_error_high=pl.when(ours).then(high).when(newton).then(0.11).otherwise(1.0),
        )
        return verdicts(table)[0]

    assert verdict(0.19, 0.21).outcome == "worse"
    assert verdict(0.19, 0.21).ratio == 2
    assert verdict(0.19, 0.21).sentence == (
        "one Newton step is more accurate: its error is 2.0 times smaller than that of ModelPred"
    )
    assert verdict(0.11, 0.21).outcome == "equal"
    assert verdict(0.01, 0.05).outcome == "better"


def test_a_more_accurate_other_method_is_named_first(example: ReportInputs, tmp_path: Path):
    newton = pl.col("method") == "newton_step"
    columns = ("parameter_error", "parameter_error_low", "parameter_error_high")
    table = example.fidelity.with_columns(
        *(pl.when(newton).then(pl.col(name) / 100).otherwise(pl.col(name)) for name in columns)
    )
    text = Page(
        write_report(
            replace(example, fidelity=table, studies={}, history=None), tmp_path
        ).read_text("utf-8")
    ).text
    assert "The predictor is less accurate than the best other method on" in text
    assert (
        "One Newton step is more accurate: its error is 29 times smaller than that of ModelPred"
        in text
    )
    assert "better than ModelPred in: parameter error on every kind of subset" in text


def test_retraining_is_not_one_of_the_other_methods(example: ReportInputs, tmp_path: Path):
    exact = example.fidelity.filter(method="predictor").with_columns(
        method=pl.lit("retraining"),
        parameter_error=0.0,
        parameter_error_low=0.0,
        parameter_error_high=0.0,
        microseconds=150.0,
    )
    changed = replace(example, fidelity=pl.concat([example.fidelity, exact]), studies={})
    assert {v.other_method for v in verdicts(changed.fidelity)} == {"newton_step"}
    assert "Exact retraining" in Page(write_report(changed, tmp_path).read_text("utf-8")).text


def test_listed_rows_are_the_extremes_with_their_cells(example: ReportInputs, page: Page):
    values = example.studies["valuation"].tables["values"].sort("value", descending=True)
    best, worst = values["row_id"][0], values["row_id"][-1]
    order = re.findall(r"Row (\d+)", page.text[page.text.index("The 10 most valuable") :])
    assert order[:10] == values["row_id"].head(10).to_list()
    assert order[10:20] == values["row_id"].tail(10).reverse().to_list()
    cells = example.dataset.rows.filter(pl.col("row_id").is_in([best, worst]))
    for cell in cells.select("capitalTotal", "capitalLong").to_numpy().ravel():
        assert f"{cell:.6g}" in page.text


def test_missing_and_skipped_studies_say_why(example: ReportInputs, tmp_path: Path):
    bare = replace(
        example,
        fidelity=None,
        history=None,
        studies={
            "fairness": StudyResult({"agreement": {"spearman": 0.5}}, {}),
            "calibration": StudyResult({"skipped": "svm has no probabilities"}, {}),
        },
        skipped={"selection": "no validation rows"},
    )
    text = Page(write_report(bare, tmp_path).read_text(encoding="utf-8")).text
    assert "This study was not run: svm has no probabilities." in text
    assert "This study was not run: no validation rows." in text
    # Six sections, and the two questions that two of them answer.
    assert text.count("its results are missing from the artifacts") == 6 + 2
    assert "agreement: spearman 0.5" in text
    assert "No held-out comparison was made" in text


def test_a_regression_has_no_classes(example: ReportInputs, tmp_path: Path):
    dataset = replace(example.dataset, classes=(), labels=example.dataset.labels.double())
    assert write_report(
        replace(example, dataset=dataset, fidelity=None, history=None), tmp_path
    ).exists()


def test_values_without_a_truth_say_so(example: ReportInputs, tmp_path: Path):
    study = example.studies["valuation"]
    unknown = pl.lit(None, dtype=pl.Float64)
    values = study.tables["values"].with_columns(
        true_value=unknown, true_standard_error=unknown, standard_error=unknown
    )
    methods = study.tables["methods"].with_columns(
        *(unknown.alias(name) for name in study.tables["methods"].columns[1:-1])
    )
    bare = StudyResult({"permutations": 2}, {"values": values, "methods": methods})
    inputs = replace(example, studies={"valuation": bare}, fidelity=None, history=None)
    text = Page(write_report(inputs, tmp_path).read_text(encoding="utf-8")).text
    assert "No exact values were computed in this run" in text


def test_a_column_that_looks_like_groups_is_named_above_the_values_of_rows(
    example: ReportInputs, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(grouping, "LARGE", 0)
    rows = example.dataset.rows.with_columns(vendor=pl.int_range(pl.len()) % 2)
    inputs = replace(example, dataset=replace(example.dataset, rows=rows))
    first, second, *_ = valuation_blocks(inputs, example.studies["valuation"])
    assert isinstance(first, Text)
    assert "'vendor' (2 groups)" in first.text
    assert isinstance(second, Table)
    assert "most valuable rows" in second.caption


def test_the_config_knows_its_keys():
    assert ReportConfig().rows == 10
    with pytest.raises(ValidationError, match="row"):
        ReportConfig.model_validate({"row": 5})
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        ReportConfig(rows=0)


def test_the_package_does_not_pay_for_matplotlib():
    check = "import sys, modelpred.report; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)


def test_the_page_says_which_answers_were_retrained(example: ReportInputs):
    engine = {"used": "exact", "summary": "The models were retrained."}

    def told(*retrained: str) -> str:
        studies = {
            name: replace(result, metrics=result.metrics | {"engine": engine})
            if name in retrained or "all" in retrained
            else result
            for name, result in example.studies.items()
        }
        blocks = trust_section(replace(example, studies=studies)).blocks
        return " ".join(block.text for block in blocks if isinstance(block, Text))

    assert "All answers above come from predicted models" in told()
    assert "All answers above come from retrained models" in told("all")
    assert "The answers of valuation come from retrained models, the others" in told("valuation")
