"""The page in a real browser: what a person does, and what the page shows then."""

from urllib.parse import urlsplit

import pytest

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
