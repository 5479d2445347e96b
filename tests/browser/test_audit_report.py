"""The page of `relay audit report` in a real browser: it runs and loads nothing, and everybody can read it."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.cli.audit import app
from tests.support.accessibility import violations
from tests.support.audit_canaries import TEXTS, write_canaries
from tests.support.chromium import missing, require_playwright

require_playwright()
if find_spec("duckdb") is None:
    missing("DuckDB is missing: pip install '.[audit]'")

from playwright.async_api import Browser  # noqa: E402  # after the check

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_log_of_canaries_runs_nothing_and_fits(browser: Browser, axe: str, tmp_path: Path) -> None:
    """Without a network, light and dark, on a phone and a desk: no request, no error, no script, nothing cut off."""
    files = [option for path in write_canaries(tmp_path) for option in ("-f", str(path))]
    path = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", "--html", str(path), "--until", "2026-11-28", *files])
    assert done.exit_code == 0, done.output
    context = await browser.new_context(offline=True)
    page = await context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: said.append(request.url))
    await page.goto(path.as_uri())
    assert said == [path.as_uri()], "the style sheet was refused, or something else was loaded"
    assert await page.title() == "Audit report 2026-10-29 to 2026-11-28"
    assert await page.get_by_text(TEXTS[0], exact=True).count() > 10
    assert await page.locator("a, img, script, iframe, form").count() == 0
    for width, scheme in ((390, "light"), (1440, "dark")):
        await page.set_viewport_size({"width": width, "height": 900})
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        assert await violations(page, axe) == []
    assert (await page.pdf()).startswith(b"%PDF")
    await context.close()
