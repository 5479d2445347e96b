"""Row 25: the page to open after a log-in is one of the application, whatever a link says, in a real browser too."""

import itertools
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.pages.return_to import checked, escaped
from tests.support.chromium import ARGUMENTS, find_chromium, require_playwright
from tests.support.return_paths import BAD, GOOD, STARTS

NEVER = ("/login", "/session", "/api/auth", "/logout")


@pytest.mark.parametrize("text", GOOD, ids=ascii)
def test_row_25_pages_of_the_application_are_returned_to(text: str) -> None:
    """A path of this origin stays what it is; what is not ASCII is escaped."""
    found = checked([text], never=NEVER)
    assert unquote(found) == unquote(text)
    assert found.isascii()


def test_row_25_everything_else_becomes_the_first_page() -> None:
    """Hundreds of spellings of other origins, of the log-in and of the log-out: none is opened."""
    assert len(BAD) > 300
    wrong = [ascii(text) for text in BAD if checked([text], never=NEVER) != "/"]
    assert not wrong, wrong
    assert len(GOOD) + len(set(STARTS)) >= 90


def test_row_25_exactly_one_text() -> None:
    """None, two of them, or twice the same: each reader would take another one."""
    for values in ([], ["/a", "/b"], ["/a", "/a"], [""], ["/a", ""]):
        assert checked(values, never=NEVER) == "/"


PIECES = [
    *("/", "//", "\\", ".", "..", "%2e", "%2E%2e", "%2f", "%5c", "%255c", "%", "%0a", "\t", "\n", " ", "+"),
    *(
        "login",
        "LOGIN",
        "%6cogin",
        "logout",
        "session",
        "api/auth",
        "evil.example",
        "@",
        ":",
        "?",
        "#",
        ";",
        "a",
    ),
    *(
        "https:",
        "\x00",
        "\N{FULLWIDTH SOLIDUS}",
        "\N{IDEOGRAPHIC FULL STOP}",
        "%E3%80%82",
        "\x85",
        "%c2%85",
        "\ud800",
    ),
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=8).map("".join))
def test_row_25_no_text_leaves_the_origin(text: str) -> None:
    """Whatever the text: the result is a path of this origin that begins with one slash, and checks as itself."""
    found = checked([text], never=NEVER)
    assert_own(found)
    assert checked([found], never=NEVER) == found


def assert_own(found: str) -> None:
    """Check a result by Python's parsers."""
    assert found.isascii()
    for form in (found, unquote(found)):
        assert form.startswith("/")
        assert not form.startswith("//")
        assert "\\" not in form
        assert not any(character.isspace() or ord(character) < 32 for character in form)
    parts = urlsplit(found)
    assert (parts.scheme, parts.netloc) == ("", "")
    assert parts.path.strip("/").casefold() not in {"login", "logout", "session"}


@given(st.text(max_size=40), st.text(max_size=40))
def test_row_25_a_page_of_its_own_comes_back(path: str, query: str) -> None:
    """What the boundary writes for a page that a browser asked for: that page, or the first one."""
    sent = "/" + quote(path.encode(errors="replace"))
    asked = quote(query.encode(errors="replace"), safe="=&")
    found = checked([unquote(escaped(sent, asked))], never=NEVER)
    whole = f"{sent}?{asked}" if asked else sent
    assert found == "/" or unquote(found).replace("+", " ") == unquote(whole).replace("+", " ")


async def test_row_25_a_real_browser_stays_at_the_origin() -> None:
    """Chromium resolves thousands of results to this origin, and to neither the log-in nor the log-out."""
    require_playwright()
    from playwright.async_api import async_playwright

    texts = ["/" + "".join(pieces) for pieces in itertools.product(PIECES[:22], repeat=3)]
    results = sorted({checked([text], never=NEVER) for text in [*GOOD, *BAD, *texts]})
    assert len(results) > 1000
    script = """(results) => results.map((text) => {
        const url = new URL(text, "https://app.example.com/login");
        const decoded = url.pathname.replace(/%[2-7][0-9a-f]/gi, (escape) => unescape(escape));
        return [text, url.origin, url.pathname, decoded];
    })"""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        page = await browser.new_page()
        found: list[Any] = await page.evaluate(script, results)
        await browser.close()
    for text, origin, path, decoded in found:
        assert origin == "https://app.example.com", ascii(text)
        for form in (path, decoded):
            assert not form.startswith("//"), ascii(text)
            assert form.casefold().strip("/") not in {"login", "logout", "session"}, ascii(text)
            assert not f"{form.casefold()}/".startswith("/api/auth/"), ascii(text)
