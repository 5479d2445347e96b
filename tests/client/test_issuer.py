"""Asking for a scoped token."""

import json

import pytest

from relay.client import TokenError, fetch_token
from relay.core.errors import ConfigurationError
from tests.support.scripted_servers import TOKEN, answer, http_server

GRANTED = {
    "wsToken": TOKEN,
    "token_type": "N_A",
    "expires_in": 30,
    "endpoint": "ws://127.0.0.1:1/ws/prices",
    "channels": ["prices.A"],
    "rejected": [{"channel": "orders.1", "code": "forbidden"}],
}


async def test_the_answer_becomes_a_token() -> None:
    """The token, its endpoint, what was granted and what was not; the session goes as Bearer, and only there."""
    async with http_server(answer(200, GRANTED)) as server:
        token = await fetch_token(
            server.url + "/",
            "session-1",
            endpoint="prices",
            channels=["prices.A", "orders.1"],
            origin="https://a.b",
        )
    assert (token.token, token.endpoint, token.expires_in_s) == (TOKEN, GRANTED["endpoint"], 30)
    assert (token.channels, token.rejected) == (("prices.A",), ("orders.1",))
    [(path, headers, body)] = server.requests
    assert path == "/auth/ws-token"
    assert headers["authorization"] == "Bearer session-1"
    assert json.loads(body) == {
        "endpoint": "prices",
        "channels": ["prices.A", "orders.1"],
        "origin": "https://a.b",
    }


async def test_nothing_is_named_unless_asked() -> None:
    """Without arguments the body is empty, and the issuer's defaults apply."""
    async with http_server(answer(200, GRANTED)) as server:
        await fetch_token(server.url, "session-1")
    assert json.loads(server.requests[0][2]) == {}


async def test_a_tokens_repr_does_not_hold_it() -> None:
    """A token that is printed by accident stays secret."""
    async with http_server(answer(200, GRANTED)) as server:
        assert TOKEN not in repr(await fetch_token(server.url, "session-1"))


async def test_a_refusal_has_the_issuers_code_and_status() -> None:
    """A refusal has the issuer's code, status and sentence, and is final."""
    refused = {"code": "invalid_session", "message": "There is no valid session.", "retryable": False}
    async with http_server(answer(401, refused)) as server:
        with pytest.raises(TokenError, match="no valid session") as caught:
            await fetch_token(server.url, "session-1")
    assert (caught.value.code, caught.value.status, caught.value.retryable) == ("invalid_session", 401, False)


async def test_waiting_is_asked_for() -> None:
    """429 carries how long to wait."""
    limited = {"code": "rate_limited", "message": "Wait.", "retryable": True}
    async with http_server(answer(429, limited, retry_after="7")) as server:
        with pytest.raises(TokenError) as caught:
            await fetch_token(server.url, "session-1")
    assert caught.value.retryable
    assert caught.value.retry_after_s == 7.0


async def test_nobody_there_may_change() -> None:
    """An issuer that can't be reached may be back soon."""
    with pytest.raises(TokenError, match="can't be reached") as caught:
        await fetch_token("http://127.0.0.1:9", "session-1")
    assert (caught.value.code, caught.value.status, caught.value.retryable) == ("unreachable", None, True)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"wsToken":5}', b"\xff"])
async def test_other_servers_are_recognised(body: bytes) -> None:
    """Another server's answer is told from an issuer's, and may be different next time."""
    async with http_server(answer(200, body)) as server:
        with pytest.raises(TokenError, match="not the issuer") as caught:
            await fetch_token(server.url, "session-1")
    assert caught.value.retryable


async def test_redirects_are_not_followed() -> None:
    """A redirect could carry the session token to another host."""
    async with (
        http_server(answer(200, GRANTED)) as elsewhere,
        http_server(answer(307, {}, location=elsewhere.url)) as server,
    ):
        with pytest.raises(TokenError, match="307"):
            await fetch_token(server.url, "session-1")
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.example.com",
        "ftp://a",
        "http://",
        "http://a:99999",
        "http://u:p@a",
        "http://a/?q",
        "http://a b",
    ],
)
async def test_bad_addresses_are_refused(url: str) -> None:
    """What is no address is one sentence with an example."""
    with pytest.raises(ConfigurationError, match="is not an address of a relay"):
        await fetch_token(url, "session-1")


@pytest.mark.parametrize("session", ["", " ", "a\r\nX: y", "ü"])
async def test_bad_sessions_are_refused_unseen(session: str) -> None:
    """A session that can't be one never becomes a header."""
    with pytest.raises(ConfigurationError, match="session token"):
        await fetch_token("http://127.0.0.1:9", session)
