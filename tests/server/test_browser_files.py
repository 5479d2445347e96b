"""The browser client as the public listener serves it."""

import gzip

import httpx
import pytest
from starlette.applications import Starlette

from relay.server.browser_files import browser_routes
from tests.support.npm_package import PACKAGE

SCRIPTS = [f"relay-{part}{form}.js" for part in ("client", "session", "react") for form in ("", ".min")]


@pytest.fixture
def client() -> httpx.AsyncClient:
    """A client of an application with these routes."""
    app = httpx.ASGITransport(Starlette(routes=browser_routes()))
    return httpx.AsyncClient(transport=app, base_url="http://relay.test")


@pytest.mark.parametrize("name", [*SCRIPTS, "relay-client.d.ts", "relay-react.d.ts"])
async def test_each_file_is_compressed_and_typed(client: httpx.AsyncClient, name: str) -> None:
    """A third of the bytes; a script that the browser runs, and types that an editor reads."""
    source = name.replace("relay-react", "react") if name.endswith(".d.ts") else f"../dist/{name}"
    content = (PACKAGE / "src" / source).read_bytes()
    async with client.stream("GET", f"/client/{name}", headers={"Accept-Encoding": "br, gzip"}) as answer:
        sent = b"".join([part async for part in answer.aiter_raw()])
    assert (gzip.decompress(sent), answer.headers["content-encoding"]) == (content, "gzip")
    assert len(sent) < len(content) / 1.5
    assert answer.headers["vary"] == "Accept-Encoding"
    kind = "text/javascript; charset=utf-8" if name in SCRIPTS else "application/typescript"
    assert answer.headers["content-type"] == kind


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "gzip; q=0.0", "notgzip"])
async def test_a_client_that_takes_no_gzip_gets_none(client: httpx.AsyncClient, accepted: str) -> None:
    """An old tool reads the file as it is."""
    answer = await client.get("/client/relay-client.js", headers={"Accept-Encoding": accepted})
    assert "content-encoding" not in answer.headers
    assert answer.content == (PACKAGE / "dist" / "relay-client.js").read_bytes()


@pytest.mark.parametrize("accepted", ["gzip", "identity"])
async def test_a_second_visit_costs_no_bytes(client: httpx.AsyncClient, accepted: str) -> None:
    """The browser asks whether its copy is the newest, because an update must not wait for a cache."""
    headers = {"Accept-Encoding": accepted}
    first = await client.get("/client/relay-client.min.js", headers=headers)
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        again = await client.get("/client/relay-client.min.js", headers={**headers, "If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    older = await client.get("/client/relay-client.min.js", headers={**headers, "If-None-Match": '"x"'})
    assert older.status_code == 200


async def test_nothing_else_is_served(client: httpx.AsyncClient) -> None:
    """The sources and the tools are in the package, and not on the web."""
    for name in ("package.json", "README.md", "src/stream.js", "../package.json", "relay-client"):
        assert (await client.get(f"/client/{name}")).status_code == 404
