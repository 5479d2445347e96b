"""The session check is down: nobody can tell who is behind a cookie, so nobody gets a token, and no cookie goes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from starlette.types import Receive, Scope, Send

from relay.audit.anomalies import ClientIdentity
from relay.core.errors import Reason, Refusal, UnavailableError
from relay.issuer.service import Issuer
from relay.net.sockets import bind
from relay.server.options import issuer_options, policy
from relay.server.parts import make_parts
from relay.server.public import public_app
from relay.sessions.base import Session, SessionVerifier
from relay.sessions.recent_sessions import RecentSessions
from relay.settings.load import load
from relay.settings.sessions import Upstream
from relay.web.uvicorn_runner import HttpServer
from tests.support.raw_http import post
from tests.support.relay_process import Relay, make_relay


class Down:
    """A session verifier whose backend does not answer."""

    async def verify(
        self, credential: str, *, now: float, grace_s: float = 0, caller: str = ""
    ) -> Session | Refusal:
        raise UnavailableError(Reason.BACKEND_UNAVAILABLE, "The session backend did not answer in 2 s.")

    def forget(self, ref: str) -> None:
        """There is nothing to forget."""

    async def aclose(self) -> None:
        """There is nothing to close."""


class Hanging(Down):
    """A session verifier that has no time limit of its own, and whose backend never answers."""

    async def verify(
        self, credential: str, *, now: float, grace_s: float = 0, caller: str = ""
    ) -> Session | Refusal:
        await asyncio.Event().wait()
        raise AssertionError("it never answers")


_DOWN = Down()


@contextlib.asynccontextmanager
async def public_listener(
    folder: Path, *, verifier: SessionVerifier = _DOWN, upstream: Upstream | None = None, waited_s: float = 0
) -> AsyncIterator[Relay]:
    """Run the public side of a relay in this process, with a verifier that is down.

    Requests are taken as if they had waited for `waited_s` already.
    """
    relay = make_relay(folder, bff='backend = "http://127.0.0.1:9"')
    settings = load(folder / "relay.toml")
    session = settings.session.model_copy(update={"upstream": upstream})
    settings = settings.model_copy(update={"session": session})
    async with make_parts(settings) as parts:
        parts.issuer = Issuer(
            issuer_options(settings),
            policy=policy(settings),
            limits=parts.issuer.limits,
            client_identity=ClientIdentity(b"key"),
            verifier=verifier,
            recent_sessions=RecentSessions(),
            state=parts.state,
            auditor=parts.auditor,
            key=parts.keys.signing_key,
        )
        with contextlib.closing(bind(f"127.0.0.1:{relay.ports[0]}", setting="listen.http")) as sock:
            app = public_app(parts, ())

            async def late(scope: Scope, receive: Receive, send: Send) -> None:
                scope["state"]["arrived"] -= waited_s
                await app(scope, receive, send)

            server = HttpServer(late, sock)
            async with anyio.create_task_group() as group:
                group.start_soon(server.run)
                await server.started()
                yield relay
                server.stop()


@pytest.mark.parametrize("path", ["/auth/ws-token", "/api/auth/ws-token"])
async def test_no_token_without_a_session_check(tmp_path: Path, path: str) -> None:
    """503 with Retry-After for good sessions and bad ones alike; cookies stay; the log says why."""
    async with public_listener(tmp_path) as relay:
        origin = ("Origin", relay.url)
        for session in (relay.session(), relay.session(token_use="refresh"), "garbage"):
            for fields in (
                [origin, ("Cookie", f"access-token={session}; refresh-token={session}")],
                [("Authorization", f"Bearer {session}")],
            ):
                answer = await post(relay, path, fields)
                assert (answer.status, answer.code, answer.json["retryable"]) == (503, "unavailable", True)
                assert b"wsToken" not in answer.body
                assert int(answer.all("retry-after")[0]) >= 1
                assert answer.all("set-cookie") == [], "the session may be good: it is not thrown away"
        await relay.recorded(lambda record: record["event"].get("reason") == "backend_unavailable")
    actions = {record["event"]["action"] for record in relay.audit()}
    assert "token.issued" not in actions


async def test_the_wait_for_a_turn_counts_into_the_session_check(tmp_path: Path) -> None:
    """A request that has waited for as long as the check may take is answered with 503 at once."""
    upstream = Upstream(me="http://127.0.0.1:9/auth/me", timeout_s=1.5)
    async with public_listener(tmp_path, verifier=Hanging(), upstream=upstream, waited_s=1.8) as relay:
        fields = [("Origin", relay.url), ("Cookie", f"access-token={relay.session()}")]
        answer = await post(relay, "/auth/ws-token", fields)
        assert (answer.status, answer.code) == (503, "unavailable")
        await relay.recorded(lambda record: record["event"].get("reason") == "backend_unavailable")


async def test_csrf_and_missing_sessions_are_told_first(tmp_path: Path) -> None:
    """What needs no check is refused as ever: another site's page with 403, nobody at all with 401."""
    async with public_listener(tmp_path) as relay:
        evil = [("Origin", "https://evil.example"), ("Cookie", f"access-token={relay.session()}")]
        assert (await post(relay, "/auth/ws-token", evil)).status == 403
        assert (await post(relay, "/auth/ws-token", [("Origin", relay.url)])).status == 401


async def test_a_log_out_still_clears_the_cookies(tmp_path: Path) -> None:
    """503, since the session's sockets could not be found; but the browser is logged out."""
    async with public_listener(tmp_path) as relay:
        fields = [("Origin", relay.url), ("Cookie", f"access-token={relay.session()}")]
        answer = await post(relay, "/api/auth/logout", fields)
        assert (answer.status, len(answer.all("set-cookie"))) == (503, 2)
