"""The page in a real browser: what a person does, and what the page shows then."""

from urllib.parse import urlsplit

import polars as pl
import pytest

from tests.page.conftest import ROWS

pytestmark = pytest.mark.e2e
LIMIT = 60_000  # milliseconds: the machine of a test may be busy


@pytest.fixture
def page(browser, served):
    """The page, loaded; fails if it logs an error or asks for anything beyond this machine."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(LIMIT)
    shown, wrong, asked = context.new_page(), [], []
    shown.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.wrong = wrong
    opened(shown, served)
    yield shown
    hosts = {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    context.close()
    assert hosts == {"127.0.0.1"}
    assert wrong == []


def opened(page, address):
    page.goto(address)
    page.wait_for_selector("html[data-ready]")


def answered(page, act):
    """Do something that changes the edit, and wait until its model is drawn."""
    drawn = int(page.get_attribute("html", "data-answers"))
    act()
    page.wait_for_selector(f'html[data-answers="{drawn + 1}"]')


def row(page, row_id):
    return page.locator("#grid .row").filter(has=page.get_by_text(row_id, exact=True))


def loss(page):
    return page.inner_text('[data-score="Log loss"]')


def test_rows_are_removed_and_come_back(page):
    before = loss(page)
    row(page, "p3").click()
    row(page, "p7").click(modifiers=["Shift"])
    assert page.inner_text("#selected") == "5 rows selected"
    answered(page, lambda: page.click("#remove"))
    assert page.inner_text("#edited") == "5 removed"
    removed = loss(page)
    assert removed != before
    answered(page, lambda: page.click("#undo"))
    assert loss(page) == before
    answered(page, lambda: page.click("#redo"))
    assert loss(page) == removed
    answered(page, lambda: page.click("#reset"))
    assert page.inner_text("#edited") == "No change yet"
    assert loss(page) == before


def test_flipped_labels_weights_and_restoring(page):
    row(page, "p3").click()
    label = row(page, "p3").locator(".cell").nth(1).inner_text()
    other = {"rich": "poor", "poor": "rich"}[label]
    page.select_option("#label-input select", other)
    answered(page, lambda: page.click("#relabel"))
    cells = row(page, "p3").locator(".cell")
    assert cells.nth(1).inner_text() == other
    assert cells.nth(2).inner_text() == f"was {label}"
    page.fill("#weight", "3")
    answered(page, lambda: page.click("#reweight"))
    assert cells.nth(2).inner_text() == f"counts 3\N{MULTIPLICATION SIGN}, was {label}"
    assert page.inner_text("#edited") == "1 reweighted, 1 relabelled"
    answered(page, lambda: page.click("#restore"))
    assert cells.nth(2).inner_text() == ""
    assert cells.nth(1).inner_text() == label


def test_filters_sorting_and_groups(page, mp):
    rows = mp.fitted.dataset.rows
    page.select_option("#filter-column", label="work")
    page.fill("#filter-value", "office")
    page.click("#filter button")
    office = rows.filter(pl.col("work") == "office")
    assert f"{office.height} rows of {ROWS}" in page.inner_text("#chips")
    page.select_option("#filter-column", label="size")
    page.fill("#filter-value", "40")
    page.click("#filter button")
    both = office.filter(pl.col("size") >= 40)
    page.click("#select-shown")
    assert page.inner_text("#selected") == f"{both.height} rows selected"
    page.click("#grid .head button:has-text('size')")
    largest = both.sort("size", descending=True)["row_id"][0]
    assert page.locator("#row-0 .cell").first.inner_text() == largest
    page.select_option("#sort-column", label="noise")
    page.click("#sort-direction")
    assert page.locator("#row-0 .cell").first.inner_text() == both.sort("noise")["row_id"][0]
    answered(page, lambda: page.click("#remove"))
    assert page.inner_text("#edited") == f"{both.height} removed"
    for _ in range(2):
        page.locator("#chips button").first.click()
    page.select_option("#group-column", label="work")
    page.wait_for_selector("#group-value option[value='<b>field</b>']", state="attached")
    page.select_option("#group-value", "<b>field</b>")
    page.click("#select-group")
    field = rows.filter(pl.col("work") == "<b>field</b>").height
    assert page.inner_text("#selected") == f"{field} rows selected"
    assert page.locator("#grid b").count() == 0  # cells are text, never markup


def test_scores_are_columns_to_sort_by(page, mp):
    for name in ("value", "suspicion", "memorization"):
        page.click(f"#score-{name}")
        page.wait_for_selector(f"#score-{name}[aria-pressed=true]")
    heads = page.locator("#grid .head .cell").all_inner_texts()
    assert [head.strip(" ▼▲") for head in heads[3:6]] == ["Value", "Suspicion", "Memorization"]
    page.click("#grid .head button:has-text('Suspicion')")
    page.click("#grid .head button:has-text('Suspicion')")
    if "▲" in page.inner_text("#grid .head button:has-text('Suspicion')"):
        page.click("#grid .head button:has-text('Suspicion')")
        page.click("#grid .head button:has-text('Suspicion')")
    first = page.locator("#row-0 .cell").first.inner_text()
    assert first == mp.suspects().rows["row_id"][0]


def test_predictions_are_confirmed_by_retraining(page, predicted):
    opened(page, predicted)
    row(page, "p3").click()
    answered(page, lambda: page.click("#remove"))
    page.wait_for_selector("text=exact retraining differs by at most")
    assert page.inner_text("#how .badge") == "Predicted"
    answered(page, lambda: page.click("#confirm"))
    assert page.inner_text("#how .badge") == "Retrained"


def test_an_explanation_is_applied(page):
    page.fill("#explain-row", "test-2")
    page.click("#explain button")
    page.wait_for_selector("#flip-apply")
    count = int(page.get_attribute("[data-flip]", "data-flip"))
    page.click("#flip-show")
    assert page.locator("#grid .row.marked").count() >= 1
    assert page.inner_text("#selected").startswith(f"{count} row")
    answered(page, lambda: page.click("#flip-apply"))
    assert page.inner_text("#edited") == f"{count} removed"
    flipped = page.locator("#flips tbody tr td:first-child").all_inner_texts()
    assert "test-2" in flipped


def test_a_typed_row_is_explained(page):
    page.locator("summary", has_text="Type a row in").click()
    page.fill("#typed", 'work,size,age,noise\n"a,""b""",44,30,0')
    page.click("#explain-typed button")
    page.wait_for_selector("#explanation >> text=The typed row is predicted")


def test_rows_are_added_from_csv_and_downloads_come_back(page, tmp_path):
    page.locator("summary", has_text="Add rows").click()
    page.click("#header")
    assert page.input_value("#pasted").startswith("size,work,age,noise,label\n")
    page.fill("#pasted", "size,work,age,noise,label\n44,office,30,0,poor\n12,office,,1,rich\n")
    answered(page, lambda: page.click("#paste button[type=submit]"))
    row(page, "p3").click()
    answered(page, lambda: page.click("#remove"))
    assert page.inner_text("#edited") == "1 removed, 2 added"
    before = loss(page)
    with page.expect_download() as download:
        page.click("[data-form=csv]")
    path = tmp_path / "edit.csv"
    download.value.save_as(path)
    answered(page, lambda: page.click("#reset"))
    page.fill("#pasted", path.read_text())
    answered(page, lambda: page.click("#paste button[type=submit]"))
    assert page.inner_text("#edited") == "1 removed, 2 added"
    assert loss(page) == before
    for form in ("json", "sklearn"):
        with page.expect_download() as download:
            page.click(f"[data-form={form}]")
        assert (
            download.value.suggested_filename == {"json": "model.json", "sklearn": "model.py"}[form]
        )
    page.click("[data-form=python]")
    page.wait_for_selector("#exported pre:has-text('mp.edit(')")


def test_the_address_restores_the_edit(page, browser):
    row(page, "p3").click()
    answered(page, lambda: page.click("#remove"))
    page.wait_for_url("**/#edit=*")
    before, address = loss(page), page.url
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.inner_text("#edited") == "1 removed"
    assert loss(page) == before
    context = browser.new_context()
    other = context.new_page()
    opened(other, address)
    assert other.inner_text("#edited") == "1 removed"
    answered(other, lambda: other.click("#reset"))
    assert page.inner_text("#edited") == "1 removed"  # the other tab's state is its own
    opened(other, address[:-4])
    other.wait_for_selector("text=the address holds a damaged edit")
    context.close()


def test_errors_are_told_in_place_and_lose_nothing(page):
    row(page, "p3").click()
    row(page, "p5").click(modifiers=["Shift"])
    page.locator("summary", has_text="Add rows").click()
    page.fill("#pasted", "size,work,age,noise,label\nbig,office,30,0,poor")
    page.click("#paste button[type=submit]")
    page.wait_for_selector("#problem:not([hidden])")
    assert "expected a number" in page.inner_text("#problem")
    assert page.inner_text("#selected") == "3 rows selected"
    assert "big,office" in page.input_value("#pasted")
    page.wrong.clear()  # the browser logs the answer of 400
    page.click("#problem button")
    page.route("**/api/answer", lambda route: route.abort())
    page.click("#remove")
    page.wait_for_selector("text=the server does not answer")
    assert page.inner_text("#edited") == "3 removed"
    page.unroute("**/api/answer")
    answered(page, lambda: page.click("#undo"))
    assert page.is_hidden("#problem")
    page.wrong.clear()


def test_the_table_is_used_by_keyboard(page):
    page.focus("#grid")
    for key in ("ArrowDown", "ArrowDown", "Shift+ArrowDown", "Shift+ArrowDown"):
        page.keyboard.press(key)
    assert page.inner_text("#selected") == "3 rows selected"
    active = page.get_attribute("#grid", "aria-activedescendant")
    assert page.locator(f"#{active}").count() == 1
    answered(page, lambda: page.keyboard.press("Delete"))
    assert page.inner_text("#edited") == "3 removed"
    answered(page, lambda: page.keyboard.press("Control+z"))
    page.keyboard.press("Control+a")
    assert page.inner_text("#selected") == f"{ROWS} rows selected"
    page.keyboard.press("End")
    assert page.locator(f"#row-{ROWS - 1}").is_visible()
    page.keyboard.press("Escape")
    assert page.inner_text("#selected") == "No row selected"


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_rule_is_broken(page, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    row(page, "p3").click()
    answered(page, lambda: page.click("#remove"))
    row(page, "p5").click()
    answered(page, lambda: page.click("#reweight"))
    page.fill("#explain-row", "test-2")
    page.click("#explain button")
    page.wait_for_selector("#flip-apply")
    found = axe.Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"][:90] for node in rule["nodes"]][:3]) for rule in found] == []
    wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wider <= 0  # nothing is cut off or scrolls sideways but the tables


def test_dark_and_light_are_chosen_and_followed(page):
    def paper():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page.emulate_media(color_scheme="light")
    assert paper() == "rgb(255, 255, 255)"
    page.click("#theme")
    assert paper() == "rgb(20, 23, 27)"
    page.click("#theme")
    page.emulate_media(color_scheme="dark")
    assert paper() == "rgb(255, 255, 255)"  # what was chosen stays


def test_only_the_last_of_quick_edits_is_drawn(page):
    sent = []
    page.on("requestfailed", lambda request: sent.append(request.url))
    row(page, "p3").click()
    page.evaluate("for (let at = 0; at < 6; at += 1) document.querySelector('#remove').click()")
    page.wait_for_selector("text=Retrained")
    page.wait_for_timeout(500)
    assert int(page.get_attribute("html", "data-answers")) < 7
    assert any(url.endswith("/api/answer") for url in sent)  # stale requests are aborted
