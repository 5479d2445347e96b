"""Sessions that the backend judges: what it is asked, how often, and what a log-out cuts."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from relay.core.errors import Reason, Refusal, UnavailableError
from relay.sessions import cache, upstream
from relay.sessions.base import EndedRefusal, Session
from relay.sessions.claims import ClaimNames
from relay.sessions.session_ref import session_ref
from relay.sessions.upstream import UpstreamOptions, UpstreamVerifier
from tests.support.backends import Backend, Clock, running_backend
from tests.support.signed_sessions import NOW, REF_KEY, token

USER = {"sub": "user-7", "roles": ["trader"], "sid": "session-1", "iat": NOW - 60}


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A backend that knows user-7."""
    async with running_backend() as running:
        running.answers(USER)
        yield running


@pytest.fixture
def clock() -> Clock:
    """The verifier's clock."""
    return Clock()


@pytest.fixture
async def verifier(backend: Backend, clock: Clock) -> AsyncIterator[UpstreamVerifier]:
    """A verifier that asks the backend."""
    verifier = UpstreamVerifier(UpstreamOptions(me=backend.url, ref_key=REF_KEY, timeout_s=60), clock=clock)
    yield verifier
    await verifier.aclose()


async def session(verifier: UpstreamVerifier, credential: str = "opaque-token") -> Session:
    """Return the session, which there must be."""
    found = await verifier.verify(credential, now=NOW)
    assert isinstance(found, Session), found
    return found


# --- what is asked and understood


async def test_the_answer_of_the_backend_is_the_session(backend: Backend, verifier: UpstreamVerifier) -> None:
    """The token goes to /auth/me as Bearer, without cookies, and the answer is the session."""
    assert await session(verifier) == Session(
        subject="user-7",
        roles=("trader",),
        ref=session_ref(REF_KEY, session_id="session-1", subject="user-7"),
        own_id=True,
        issued_at=NOW - 60,
        token_issued_at=NOW - 60,
    )
    assert backend.calls == ["Bearer opaque-token"]
    assert backend.headers[0]["accept-encoding"] == "identity"
    assert "cookie" not in backend.headers[0]


async def test_without_a_session_id(backend: Backend, verifier: UpstreamVerifier) -> None:
    """The user then stands for the session, whichever token he comes with."""
    backend.answers({"sub": "user-7"})
    one, other = await session(verifier, "token-a"), await session(verifier, "token-b")
    assert one.ref == other.ref == session_ref(REF_KEY, session_id=None, subject="user-7")
    assert not one.own_id


@pytest.mark.parametrize(
    ("answer", "names", "expected"),
    [
        (
            {"user": {"id": "u", "roles": "a"}},
            ClaimNames(subject="user.id", roles="user.roles"),
            ("u", ("a",)),
        ),
        ({"id": 42, "groups": ["a", "b"]}, ClaimNames(subject="id", roles="groups"), ("42", ("a", "b"))),
        ({"https://x.example/id": "u"}, ClaimNames(subject="https://x.example/id"), ("u", ())),
    ],
)
async def test_claims_are_read_from_where_the_settings_say(
    backend: Backend, answer: dict[str, Any], names: ClaimNames, expected: tuple[str, tuple[str, ...]]
) -> None:
    """Claims stand where the settings say, in objects too; ids may be whole numbers, as databases have them."""
    backend.answers(answer)
    verifier = UpstreamVerifier(UpstreamOptions(me=backend.url, ref_key=REF_KEY, claims=names))
    found = await session(verifier)
    await verifier.aclose()
    assert (found.subject, found.roles) == expected


async def test_when_the_session_began(backend: Backend, verifier: UpstreamVerifier) -> None:
    """As the backend says; else as the token says, if it is a JWT and not from the future."""
    assert (await session(verifier, token({"iat": NOW - 300}))).issued_at == NOW - 60
    backend.answers({"sub": "user-7"})
    assert (await session(verifier, token({"iat": NOW - 301}))).issued_at == NOW - 301
    assert (await session(verifier, "opaque")).issued_at == 0
    assert (await session(verifier, token({"iat": NOW + 50}))).issued_at == NOW + 50
    assert (await session(verifier, token({"iat": NOW + 900}))).issued_at == 0


@pytest.mark.parametrize(
    "answer", [{}, {"sub": ""}, {"sub": None}, {"sub": 1.5}, {"sub": True}, {"sub": "u", "roles": 7}]
)
async def test_an_answer_that_says_nobody(
    backend: Backend, verifier: UpstreamVerifier, answer: dict[str, Any]
) -> None:
    """200 alone is no session: it has to say whose."""
    backend.answers(answer)
    with pytest.raises(UnavailableError) as raised:
        await verifier.verify("opaque-token", now=NOW)
    assert raised.value.reason is Reason.BACKEND_FAULT


@pytest.mark.parametrize("status", [204, 302, 303, 307, 401, 403, 404, 410])
async def test_a_status_that_means_no_session(
    backend: Backend, verifier: UpstreamVerifier, status: int
) -> None:
    """The refusal clears no cookie, because the backend may only have lost its sessions or its path."""
    backend.answers(b"" if status == 204 else USER, status=status, headers={"location": "/login"})
    refused = await verifier.verify("opaque-token", now=NOW)
    assert isinstance(refused, Refusal)
    assert not isinstance(refused, EndedRefusal)
    assert refused.reason is (Reason.SESSION_INVALID if status == 403 else Reason.SESSION_EXPIRED)
    assert refused.setting == "session.upstream.me"
    over = await verifier.verify(token({"exp": NOW - 3600}), now=NOW)
    assert isinstance(over, EndedRefusal) is (status != 403)


async def test_a_scoped_token_is_never_sent(backend: Backend, verifier: UpstreamVerifier) -> None:
    """Nor is what no Bearer header can carry: a line end in it would be a header of its own."""
    for credential in (token(typ="scoped+jwt"), "a b", "a\r\nX: y", "", "ä", "a" * 19_681, "a,b", '"a"'):
        assert isinstance(await verifier.verify(credential, now=NOW), Refusal)
    assert backend.calls == []


# --- how often


async def test_one_call_for_one_token(backend: Backend, verifier: UpstreamVerifier) -> None:
    """A hundred at once share a call; another token has one of its own."""
    backend.hold()
    waiting = [asyncio.create_task(session(verifier)) for _ in range(100)]
    other = asyncio.create_task(session(verifier, "another-token"))
    await backend.called(2)
    backend.release()
    assert len({found.ref for found in await asyncio.gather(*waiting, other)}) == 1
    assert sorted(backend.calls) == ["Bearer another-token", "Bearer opaque-token"]


async def test_who_gives_up_does_not_end_it(backend: Backend, verifier: UpstreamVerifier) -> None:
    """A browser that goes away while others wait for the same answer takes nothing from them."""
    backend.hold()
    first, second = (asyncio.create_task(session(verifier)) for _ in range(2))
    await backend.called(1)
    first.cancel()
    await asyncio.wait({first})
    backend.release()
    assert (await second).subject == "user-7"
    assert len(backend.calls) == 1


async def test_answers_are_cached_for_five_seconds(
    backend: Backend, verifier: UpstreamVerifier, clock: Clock
) -> None:
    """For five seconds and no longer."""
    await session(verifier)
    clock.now += 4.9
    await session(verifier)
    assert len(backend.calls) == 1
    clock.now += 0.1
    await session(verifier)
    assert len(backend.calls) == 2


async def test_a_no_is_kept_too(backend: Backend, verifier: UpstreamVerifier, clock: Clock) -> None:
    """Who goes on with a dead token costs the backend a call each five seconds."""
    backend.answers(status=401)
    for _ in range(3):
        assert isinstance(await verifier.verify("dead-token", now=NOW), Refusal)
    assert len(backend.calls) == 1
    backend.answers(USER)
    clock.now += 5
    assert (await session(verifier, "dead-token")).subject == "user-7"


async def test_keeping_can_be_switched_off(backend: Backend) -> None:
    """With cache_s = 0 each request is a call."""
    options = UpstreamOptions(me=backend.url, ref_key=REF_KEY, cache_s=0)
    verifier = UpstreamVerifier(options)
    await session(verifier)
    await session(verifier)
    await verifier.aclose()
    assert len(backend.calls) == 2


async def test_calls_at_once_are_capped(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tokens come, only so many calls are open; the others wait, and are answered."""
    monkeypatch.setattr(upstream, "MAX_CHECKS", 3)
    verifier = UpstreamVerifier(UpstreamOptions(me=backend.url, ref_key=REF_KEY, timeout_s=60))
    backend.hold()
    waiting = [asyncio.create_task(session(verifier, f"token-{index}")) for index in range(12)]
    await backend.called(3)
    assert len(verifier._tasks) == 12
    assert len(backend.calls) == 3
    backend.release()
    await asyncio.gather(*waiting)
    await verifier.aclose()
    assert len(backend.calls) == 12


async def test_what_is_kept_is_bounded(
    backend: Backend, verifier: UpstreamVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest answer goes when there are too many."""
    monkeypatch.setattr(cache, "MAX_ENTRIES", 2)
    for credential in ("a", "b", "c", "c", "b", "a"):
        await session(verifier, credential)
    assert [call[-1] for call in backend.calls] == ["a", "b", "c", "a"]


async def test_nothing_kept_holds_a_token(verifier: UpstreamVerifier) -> None:
    """A dump of the verifier's memory has digests where tokens would be, and another process's are others."""
    secret = "an-opaque-token-of-somebody"
    await session(verifier, secret)
    kept = verifier._cache
    assert secret not in repr(vars(kept)) + repr(vars(verifier)) + repr(verifier)
    other = UpstreamVerifier(replace(verifier._options))
    assert other._cache.digest(secret) != kept.digest(secret)


# --- log-out


async def test_a_log_out_cuts_what_is_kept(backend: Backend, verifier: UpstreamVerifier) -> None:
    """The next request calls the backend again; other sessions stay cached."""
    backend.answer = by_token
    mine, other = await session(verifier, "mine"), await session(verifier, "other")
    backend.answers(status=401)
    verifier.forget(mine.ref)
    assert isinstance(await verifier.verify("mine", now=NOW), Refusal)
    assert await session(verifier, "other") == other


async def test_a_log_out_while_the_backend_is_asked(backend: Backend, verifier: UpstreamVerifier) -> None:
    """That answer may be from before it: it is not kept, and nobody who comes later shares it."""
    backend.hold()
    early = asyncio.create_task(session(verifier))
    await backend.called(1)
    verifier.forget(session_ref(REF_KEY, session_id="session-1", subject="user-7"))
    late = asyncio.create_task(session(verifier))
    await backend.called(2)
    backend.release()
    early_found, late_found = await asyncio.gather(early, late)
    assert early_found == late_found
    await session(verifier)
    assert len(backend.calls) == 2  # the late one was kept


async def test_an_answer_from_before_the_log_out_is_not_kept(
    backend: Backend, verifier: UpstreamVerifier
) -> None:
    """Callers that wait for it get it, and the next request calls the backend again."""
    backend.hold()
    early = asyncio.create_task(session(verifier))
    await backend.called(1)
    verifier.forget("whichever")
    backend.release()
    await early
    backend.answers(status=401)
    assert isinstance(await verifier.verify("opaque-token", now=NOW), Refusal)
    assert len(backend.calls) == 2


def by_token(authorization: str) -> Response:
    """Answer each token with a session of its own."""
    return JSONResponse({"sub": "user-7", "sid": authorization})
