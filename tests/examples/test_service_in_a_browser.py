"""The example service, called from a page in a real Chromium with the script of its README."""

from pathlib import Path
from typing import Any

from tests.support import readme
from tests.support.chromium import ARGUMENTS, find_chromium, require_playwright
from tests.support.example_service import FOLDER, example
from tests.support.relay_process import REPORTS, running

require_playwright()

from playwright.async_api import Page, Route, async_playwright  # noqa: E402  # after the check

PAGE = "<!doctype html><title>the application's page</title>"
# a page that the test makes up comes from no address, so the browser asks before it may call this machine
OWN_MACHINE = "--disable-features=LocalNetworkAccessChecks"
AGAIN = """
    const headers = { Authorization: `Bearer ${wsToken}` };
    const again = await fetch(address, { method: "POST", headers });
    return { endpoint, status: report.status, body: await report.json(), again: await again.json() };
"""


async def call(page: Page, port: int) -> dict[str, Any]:
    """Run the README's script in the page with this service's address, and call the service a second time."""
    [block] = [block for block in readme.read(FOLDER / "README.md").blocks if block.language == "js"]
    script = block.text.replace("fetch(endpoint", "fetch(address")
    assert script != block.text
    found: dict[str, Any] = await page.evaluate(
        f"async (address) => {{ {script} {AGAIN} }}", f"http://127.0.0.1:{port}/v1/export"
    )
    return found


async def test_a_page_gets_a_report_once(tmp_path: Path) -> None:
    """A page gets a token with its cookie and calls the service; it can also read the second call's refusal."""
    with running(tmp_path) as relay, example(tmp_path, relay.url) as port:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=find_chromium(), args=[*ARGUMENTS, OWN_MACHINE]
            )
            page = await browser.new_page()

            async def blank(route: Route) -> None:
                await route.fulfill(body=PAGE, content_type="text/html")

            await page.route(f"{relay.url}/page", blank)
            await page.context.add_cookies(
                [
                    {
                        "name": "access-token",
                        "value": relay.session(sub="alice"),
                        "url": relay.url,
                        "httpOnly": True,
                    }
                ]
            )
            await page.goto(f"{relay.url}/page")
            found = await call(page, port)
            await browser.close()
    assert (found["endpoint"], found["status"], found["body"]["user"]) == (REPORTS, 200, "alice")
    assert found["again"]["code"] == "invalid_token"
