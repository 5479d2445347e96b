"""A backend that is down, slow, confused or hostile: 503 in time, and nothing of it reaches the browser."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import ScriptedBackend, http_answer
from tests.support.logs import lines_with
from tests.support.raw_http import Answer, post
from tests.support.relay_process import Relay, running
from tests.support.shared_relay import assert_quiet

CREDENTIALS = b'{"email":"demo@example.com","password":"demo"}'


@pytest.fixture(scope="module")
def backend() -> ScriptedBackend:
    """A backend that answers as it is told to."""
    return ScriptedBackend()


@pytest.fixture(scope="module")
def relay(backend: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that asks that backend, and waits for it a second."""
    bff = f'backend = "{backend.origin}"\ntimeout_s = 1.0'
    with running(tmp_path_factory.mktemp("scripted"), bff=bff) as relay:
        yield relay
    assert_quiet(relay)


async def login(relay: Relay, *fields: tuple[str, str]) -> Answer:
    """Log in from the application's own page."""
    first = [("Origin", relay.url), ("Content-Type", "application/json")]
    return await post(relay, "/api/auth/login", [*first, *fields], body=CREDENTIALS)


def tokens(relay: Relay, **changed: Any) -> dict[str, Any]:
    """Return what a good backend answers, with changes."""
    return {"accessToken": relay.session(), "refreshToken": "refresh", "user": {"name": "A"}} | changed


def assert_fault(relay: Relay, answer: Answer) -> None:
    """Check for the one answer to what a retry does not help: it tells nothing of the backend."""
    assert (answer.status, answer.code, answer.json["retryable"]) == (502, "bad_gateway", False)
    assert answer.all("retry-after") == answer.all("set-cookie") == []
    assert "127.0.0.1" not in answer.body.decode()


def assert_unavailable(answer: Answer) -> None:
    """Check for the one answer to all that is the backend's fault."""
    assert (answer.status, answer.code, answer.json["retryable"]) == (503, "unavailable", True)
    assert int(answer.all("retry-after")[0]) >= 1
    assert answer.all("set-cookie") == []


async def test_a_good_answer_is_a_log_in(relay: Relay, backend: ScriptedBackend) -> None:
    """What the rest of this file makes worse is good to begin with; the backend gets just the credentials."""
    async with backend.answering(http_answer(200, tokens(relay))):
        answer = await login(
            relay, ("Cookie", "access-token=x; other=y"), ("X-Forwarded-Host", "evil.example")
        )
    assert (answer.status, answer.json) == (200, {"user": {"name": "A"}})
    [request] = backend.requests
    text, body = request.decode().split("\r\n\r\n")
    assert text.startswith("POST /auth/login HTTP/1.1\r\n")
    assert json.loads(body) == json.loads(CREDENTIALS)
    assert "cookie" not in text.lower()
    assert "evil" not in text


async def test_a_backend_that_is_down_is_503(relay: Relay) -> None:
    """Nobody listens there: unavailable, and worth a retry."""
    assert_unavailable(await login(relay))
    record = await relay.audited("login.failed", reason="backend_unavailable")
    assert record["relay"]["detail"]


async def test_a_backend_that_hangs_is_503_in_time(relay: Relay, backend: ScriptedBackend) -> None:
    """It takes the request and says nothing, or begins an answer and stops: given up after bff.timeout_s."""
    for begun in (b"", b"HTTP/1.1 200 OK\r\n", http_answer(200, tokens(relay))[:-5]):
        async with backend.answering(begun, hang=True), asyncio.timeout(5):
            assert_unavailable(await login(relay))


async def test_a_backend_that_drips_is_503_in_time(relay: Relay, backend: ScriptedBackend) -> None:
    """A byte now and then would reset a timeout for each read; the whole call has one."""
    async with backend.answering(http_answer(200, tokens(relay)), drip_s=0.1), asyncio.timeout(5):
        assert_unavailable(await login(relay))


def wrong_answers(relay: Relay) -> dict[str, bytes]:
    """Answers that make no sense, by what is wrong with them."""
    good = tokens(relay)
    deep = '{"user":' + '{"a":' * 3000 + "1" + "}" * 3000 + "}"
    rest = json.dumps(good)[1:]
    return {
        "garbage": b"\x00\xff garbage\r\n\r\n",
        "nothing": b"",
        "HTML": http_answer(200, b"<html>log in</html>", "Content-Type: text/html"),
        "an empty body": http_answer(200, b""),
        "a list": http_answer(200, [good]),
        "no access token": http_answer(
            200,
            {"access_token": good["accessToken"], "refreshToken": "r", "user": {}},
            "Content-Type: application/json",
        ),
        "no refresh token": http_answer(200, {"accessToken": good["accessToken"], "user": {}}),
        "no user": http_answer(200, {"accessToken": good["accessToken"], "refreshToken": "r"}),
        "a user that is no object": http_answer(200, tokens(relay, user="A")),
        "a token that is no text": http_answer(200, tokens(relay, accessToken=5)),
        "empty tokens": http_answer(200, tokens(relay, refreshToken="")),
        "a user without end": http_answer(200, deep.replace("}", "", 1).encode() + rest.encode()),
        "a deep user": http_answer(200, f'{{"user":{"[" * 900}{"]" * 900},{rest}'.encode()),
        "a user of 900 levels": http_answer(
            200, tokens(relay, user=json.loads('{"a":' * 900 + "1" + "}" * 900))
        ),
        "30 MB": http_answer(200, tokens(relay, user={"a": "x" * 30_000_000})),
        "a length that lies": b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{}",
        "a redirect": http_answer(307, b"", "Location: http://127.0.0.1:1/steal"),
        "a redirect to itself": http_answer(302, b"", f"Location: {relay.url}/"),
        "404": http_answer(404, {}),
        "500": http_answer(500, tokens(relay)),
        "503": http_answer(503, b"<html>", "Content-Type: text/html"),
        "204": b"HTTP/1.1 204 No Content\r\n\r\n",
        "100": b"HTTP/1.1 100 Continue\r\n\r\n",
        "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        "compressed": http_answer(200, b"\x1f\x8b\x08\x00", "Content-Encoding: gzip"),
        "a refresh token as access token": http_answer(
            200, tokens(relay, accessToken=relay.session(token_use="refresh"))
        ),
        "an expired access token": http_answer(200, tokens(relay, accessToken=relay.session(exp=1))),
        "an access token that is none": http_answer(200, tokens(relay, accessToken="garbage")),
        "attributes in a token": http_answer(200, tokens(relay, refreshToken="r; Domain=evil.example")),
        "a line break in a token": http_answer(200, tokens(relay, refreshToken="r\r\nX-Evil: 1")),
        "no ASCII in a token": http_answer(200, tokens(relay, refreshToken="r\u20ac")),
        "quotes in a token": http_answer(200, tokens(relay, refreshToken='"r"')),
        "a token that fits no cookie": http_answer(200, tokens(relay, refreshToken="r" * 19_681)),
        "tokens that fit into no request": http_answer(
            200, tokens(relay, accessToken=relay.session(pad="x" * 9000), refreshToken="r" * 15_000)
        ),
    }


PASSING = {"garbage", "nothing", "a length that lies", "500", "503", "100", "101"}
"""Those that may be different the next time: what is no whole answer in HTTP, and errors of the backend itself."""


async def test_answers_that_make_no_sense_are_502(relay: Relay, backend: ScriptedBackend) -> None:
    """The browser sees one sentence and no cookie, and the log what came and what was expected.

    What may pass is 503, and worth a retry. No log-in is sent twice.
    """
    for kind, answer in wrong_answers(relay).items():
        async with backend.answering(answer), asyncio.timeout(5):
            try:
                if kind in PASSING:
                    assert_unavailable(await login(relay))
                else:
                    assert_fault(relay, await login(relay))
            except (AssertionError, KeyError) as error:
                raise AssertionError(kind) from error
        assert len(backend.requests) == 1, kind
    lines = warnings(relay)
    for came in (
        "200, text/html, 19 bytes, no JSON object",
        "404, no media type, 2 bytes",
        "307, no media type, 0 bytes",
        "204, no media type, 0 bytes, no JSON object",
        "more than 65536 bytes",
    ):
        assert came in lines, came
    assert any(came.endswith("and 19681 bytes") for came in lines)
    details = {
        came: line["expected"] for came, line in lines.items() if came.startswith("200, application/json")
    }
    assert "JSON with accessToken (a text)" in details.values()
    assert all(line["expected"] and line["setting"] for line in lines.values())
    log = relay.log_path.read_text()
    assert not [secret for secret in ("refreshrefresh", "evil.example", "X-Evil") if secret in log]


def warnings(relay: Relay) -> dict[str, dict[str, Any]]:
    """Return the warnings about answers that can't be used, by what came."""
    return {line["came"]: line for line in lines_with(relay, "the backend's answer can't be used")}


def peak_memory(relay: Relay) -> int:
    """Return the most memory that the relay ever had, in bytes."""
    assert relay.process is not None
    status = Path(f"/proc/{relay.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def test_a_bomb_is_not_unpacked(relay: Relay, backend: ScriptedBackend) -> None:
    """Kilobytes that would become gigabytes are refused packed as they are."""
    bomb = gzip.compress(b"[" * 50_000_000, mtime=0)
    assert len(bomb) < 65_536
    before = peak_memory(relay)
    async with backend.answering(http_answer(200, bomb, "Content-Encoding: gzip")):
        assert_fault(relay, await login(relay))
    assert peak_memory(relay) < before + 20_000_000


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [(400, 401, "invalid_credentials"), (401, 401, "invalid_credentials"), (403, 401, "invalid_credentials"),
     (422, 401, "invalid_credentials"), (429, 429, "rate_limited")],
)  # fmt: skip
async def test_the_backends_no_is_passed_on(
    relay: Relay, backend: ScriptedBackend, status: int, expected: int, code: str
) -> None:
    """A refusal is a refusal and not an outage; of its body and headers nothing is passed on."""
    async with backend.answering(
        http_answer(status, {"hint": "SECRET"}, "Set-Cookie: a=SECRET", "X-Hint: SECRET")
    ):
        answer = await login(relay)
    assert (answer.status, answer.code) == (expected, code)
    assert "SECRET" not in str(answer)


async def test_one_users_backend_cookies_are_not_the_nexts(relay: Relay, backend: ScriptedBackend) -> None:
    """What the backend sets for one log-in never goes out with another: all users share one client."""
    planted = ("Set-Cookie: session=ALICE; Path=/", "Set-Cookie: b=ALICE; Domain=127.0.0.1")
    async with backend.answering(http_answer(200, tokens(relay), *planted)):
        answer = await login(relay)
        assert answer.status == 200
        assert "ALICE" not in str(answer)
        assert (await login(relay)).status == 200
    assert "ALICE" not in str(backend.requests)


async def test_a_token_in_the_user_object_is_taken_out(relay: Relay, backend: ScriptedBackend) -> None:
    """A backend that repeats its tokens there, as a value, within a text, or as a name, does not defeat the cookies."""
    good = tokens(relay, refreshToken="the-refresh-token")
    access, refresh = good["accessToken"], good["refreshToken"]
    user = {
        "name": "A",
        "accessToken": access,
        "links": {"next": f"https://x/?token={access}", "prev": "/p"},
        "list": [refresh, "kept", {"r": refresh, "kept": 1}, [f"Bearer {access}"]],
        refresh: "as a name",
        "nested": {"deep": [{"deeper": {access: {}, "kept": True}}]},
    }
    async with backend.answering(http_answer(200, good | {"user": user})):
        answer = await login(relay)
    assert answer.status == 200
    assert access.encode() not in answer.body
    assert refresh.encode() not in answer.body
    assert answer.json["user"] == {
        "name": "A",
        "links": {"prev": "/p"},
        "list": ["kept", {"kept": 1}, []],
        "nested": {"deep": [{"deeper": {"kept": True}}]},
    }


async def test_other_routes_do_not_wait_for_the_backend(relay: Relay, backend: ScriptedBackend) -> None:
    """While log-ins hang, tokens are issued."""
    async with backend.answering(b"", hang=True):
        hanging = [asyncio.create_task(login(relay)) for _ in range(20)]
        assert (await relay.ask()).status_code == 200
        for task in hanging:
            assert_unavailable(await task)
