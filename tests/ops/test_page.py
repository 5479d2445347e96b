"""The ops page's files: which there are, and what comes with them."""

import re
from importlib.resources import files

import httpx
import pytest
from starlette.applications import Starlette

from relay.core.events import Action
from relay.ops.page import POLICY, page_routes


async def get(path: str) -> httpx.Response:
    """GET from the page's routes."""
    transport = httpx.ASGITransport(Starlette(routes=page_routes()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get(path)


async def test_every_file_of_the_folder_is_served_as_what_it_is() -> None:
    """What is added there and not named in the code would be missing in a deployment alone."""
    kinds = {"js": "text/javascript", "css": "text/css", "html": "text/html"}
    for file in files("relay").joinpath("ops/static").iterdir():
        path = "/ops" if file.name == "index.html" else f"/ops/{file.name}"
        answer = await get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].startswith(kinds[file.name.rpartition(".")[2]])
        assert answer.content == file.read_bytes()


async def test_nothing_inline_and_nothing_from_elsewhere() -> None:
    """The policy allows the page's own files alone, and the page needs no more."""
    answer = await get("/ops")
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert "default-src 'none'" in POLICY
    assert "require-trusted-types-for 'script'" in POLICY
    for needle in ("<script>", "<style", " style=", " onclick=", "//fonts", "https://"):
        assert needle not in answer.text, needle
    for name in ("page.js", "charts.js", "freshness.js", "nodes.js", "records.js"):
        script = (await get(f"/ops/{name}")).text
        for needle in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "eval(",
            "localStorage",
            "sessionStorage",
        ):
            assert needle not in script, (name, needle)


async def test_its_filter_offers_every_action() -> None:
    """As the relay knows them."""
    script = (await get("/ops/records.js")).text
    offered = re.findall(r'"([a-z_.]+)"', script[script.index("ACTIONS") : script.index("];")])
    assert sorted(offered) == sorted(Action)


@pytest.mark.parametrize(
    "path", ["/ops/index.html", "/ops/none.js", "/ops/..%2f..%2f__init__.py", "/ops/a/b"]
)
async def test_there_is_nothing_else(path: str) -> None:
    """Names are looked up in a table, never in a folder."""
    assert (await get(path)).status_code == 404
