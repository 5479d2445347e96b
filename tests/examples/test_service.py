"""The example service, started as its README says, with tokens from a real relay."""

import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.settings.load import load
from tests.support import readme
from tests.support.example_service import ENVIRONMENT, FOLDER, example
from tests.support.forged_tokens import claims, signed
from tests.support.protected_service import call
from tests.support.raw_http import bearing, is_unspent, knock, upgrade
from tests.support.relay_process import REPORTS, Relay, make_relay, running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the relay and the service keep their files."""
    return tmp_path_factory.mktemp("example-service")


@pytest.fixture(scope="module")
def relay(folder: Path) -> Iterator[Relay]:
    """The relay that issues the tokens."""
    with running(folder) as relay:
        yield relay


@pytest.fixture(scope="module")
def service(folder: Path, relay: Relay) -> Iterator[int]:
    """The example's port."""
    with example(folder, relay.url) as port:
        yield port


async def test_the_relays_token_opens_the_service_once(relay: Relay, service: int) -> None:
    """The service accepts a token that the issuer gave a page for it, once."""
    answer = await relay.ask(relay.session(sub="alice"), body={"endpoint": "reports"})
    body = answer.json()
    assert body["endpoint"] == REPORTS
    first = await call(service, body["wsToken"], origin=relay.url)
    assert (first.status, first.json["user"]) == (200, "alice")
    second = await call(service, body["wsToken"], origin=relay.url)
    assert (second.status, second.code) == (401, "invalid_token")


async def test_it_works_once_over_a_kill_and_a_restart(relay: Relay, tmp_path: Path) -> None:
    """A used token is refused after a kill -9 and a restart, because used tokens are in a file."""
    token = await relay.token(endpoint="reports")
    for status in (200, 401):
        with example(tmp_path, relay.url) as port:
            assert (await call(port, token, origin=relay.url)).status == status


async def test_other_tokens_are_refused(relay: Relay, service: int) -> None:
    """Tokens of a socket or another service, expired tokens and sessions all get the same answer."""
    now = int(time.time())
    good = {"scope": "call", "channels": None, "aud": REPORTS}
    past = {"iat": now - 60, "nbf": now - 60, "exp": now - 30}
    others = {
        "a socket's": await relay.token(),
        "expired": signed(relay, claims(relay, **good, **past)),
        "another service's": signed(
            relay, claims(relay, **good | {"aud": "https://bills.example.com/v1/export"})
        ),
        "a session": relay.session(),
    }
    for name, text in others.items():
        answer = await call(service, text, origin=relay.url)
        assert (answer.status, answer.code) == (401, "invalid_token"), name
    assert (await call(service, None, origin=relay.url)).status == 401
    assert (await call(service, signed(relay, claims(relay, **good)), origin=relay.url)).status == 200
    assert await is_unspent(relay, others["a socket's"])


async def test_the_gate_takes_no_service_token_and_uses_none_up(relay: Relay, service: int) -> None:
    """A token that a price socket refused is still accepted by the service."""
    token = await relay.token(endpoint="reports")
    assert (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status == 403
    await relay.audited("connect.denied", reason="token_audience")
    assert (await call(service, token, origin=relay.url)).status == 200


async def test_a_browser_may_call_from_the_applications_page_alone(relay: Relay, service: int) -> None:
    """The preflight needs no token, and allows Authorization for the page's origin only."""
    asked = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization")]
    preflight = await call(service, None, *asked, origin=relay.url, method="OPTIONS")
    assert preflight.status == 200
    assert preflight.all("access-control-allow-origin") == [relay.url]
    assert "authorization" in preflight.all("access-control-allow-headers")[0].lower()
    assert (await call(service, None, *asked, origin="https://evil.example", method="OPTIONS")).status == 400
    token = await relay.token(endpoint="reports")
    assert (await call(service, token, origin="https://evil.example")).status == 403
    assert (await call(service, token, origin=relay.url)).status == 200


def test_the_readmes_settings_are_settings(tmp_path: Path) -> None:
    """The settings in the README fit into a relay's settings."""
    path = make_relay(tmp_path).folder / "relay.toml"
    [block] = [block for block in readme.read(FOLDER / "README.md").blocks if block.language == "toml"]
    shown = tomllib.loads(block.text)
    own = path.read_text().replace(REPORTS, shown["endpoints"]["reports"]["url"])
    path.write_text(own)
    assert load(path).services["reports"].model_dump() == shown["endpoints"]["reports"]
    assert shown["grants"] == {"trader": {"reports": True}}


@pytest.mark.parametrize(
    "arguments", [["--issuer", "app.example.com"], ["--url", "http://127.0.0.1"], ["--used-tokens", "/"]]
)
def test_a_wrong_argument_is_one_sentence(arguments: list[str], tmp_path: Path) -> None:
    """A wrong argument is answered with an error on standard error, without a traceback."""
    command = [
        sys.executable,
        str(FOLDER / "reports.py"),
        "--used-tokens",
        str(tmp_path / "used.db"),
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=ENVIRONMENT)
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
