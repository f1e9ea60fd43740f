"""The page on which a person plays, in a real browser."""

import pytest
from test_play import EVIL, served, tokenizer  # noqa: F401  fixtures

from tests.browser import errors, js, open_browser, until


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from open_browser(tmp_path_factory.mktemp("profile"))


def click_cell(browser, index):
    free = until(lambda: js(browser, "return document.querySelectorAll('#now .cell.free').length"), "a board to click on")
    js(browser, "document.querySelectorAll('#now rect')[arguments[0]].dispatchEvent(new MouseEvent('click'))", index)
    until(lambda: js(browser, "return document.querySelectorAll('#now .cell.free').length") != free, "the reply")


def test_a_game_is_won_by_clicks_and_text_stays_text(browser, served):  # noqa: F811
    browser.get(f"http://localhost:{served.server_address[1]}/")
    until(lambda: js(browser, "return document.querySelectorAll('#legal button').length") == 9, "nine legal answers")
    for cell in (3, 4, 5):
        click_cell(browser, cell)
    until(lambda: js(browser, "return document.querySelector('.verdictline')"), "the end")
    assert js(browser, "return document.querySelector('.verdictline').textContent") == "You win."
    assert EVIL in js(browser, "return document.querySelector('.think').textContent")
    assert js(browser, "return [window.evil, document.querySelectorAll('main script, main img').length]") == [None, 0]
    assert js(browser, "return document.querySelectorAll('.move').length") == 5
    js(browser, "document.getElementById('new').click()")
    until(lambda: js(browser, "return document.querySelectorAll('#legal button').length") == 9, "a new game")
    assert errors(browser) == []
