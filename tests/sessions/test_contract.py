"""What every session verifier keeps to, whatever it verifies (see `relay.sessions.base`)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm
from starlette.responses import JSONResponse, Response

from relay.core.errors import Reason, Refusal, UnavailableError
from relay.keys.jwks_client import JwksClient
from relay.sessions.authjs import AuthjsVerifier
from relay.sessions.base import NotMine, Session, SessionVerifier
from relay.sessions.chain import VerifierChain
from relay.sessions.session_ref import session_ref
from relay.sessions.signed import SignedVerifier
from relay.sessions.signed_keys import read_keys
from relay.sessions.upstream import UpstreamOptions, UpstreamVerifier
from tests.support import authjs_sessions, signed_sessions
from tests.support.backends import running_backend
from tests.support.jws_forgery import forge
from tests.support.signed_sessions import NOW, OPTIONS, PAYLOAD, REF_KEY, RSA, public_pem, token

OPAQUE = "opaque-token-of-user-7"
CLAIMS = PAYLOAD | {"roles": ["trader"]}
ENCRYPTED = CLAIMS | {"exp": NOW + 3600}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A verifier, a credential that is a session of user-7, one that is its own and bad, and those of other kinds."""

    verifier: SessionVerifier
    good: str
    bad: str
    foreign: Sequence[str]
    secret: str


@contextlib.asynccontextmanager
async def with_secret() -> AsyncIterator[Case]:
    """A JWT signed with a shared secret."""
    bad = forge({"alg": "HS256"}, CLAIMS, b"x" * 32)
    foreign = (authjs_sessions.encrypted(ENCRYPTED), OPAQUE, "", "...")
    yield Case(
        verifier=SignedVerifier(OPTIONS),
        good=token(CLAIMS),
        bad=bad,
        foreign=foreign,
        secret=signed_sessions.SECRET.decode(),
    )


@contextlib.asynccontextmanager
async def with_issuer() -> AsyncIterator[Case]:
    """A JWT that names its issuer; another issuer's is none of this verifier's business."""
    issuer = {"iss": "https://backend"}
    yield Case(
        verifier=SignedVerifier(replace(OPTIONS, issuer="https://backend")),
        good=token(CLAIMS | issuer),
        bad=token(CLAIMS | issuer | {"token_use": "refresh"}),
        foreign=(token(CLAIMS), token(CLAIMS | {"iss": "https://other"}), OPAQUE),
        secret=signed_sessions.SECRET.decode(),
    )


@contextlib.asynccontextmanager
async def with_pem() -> AsyncIterator[Case]:
    """A JWT signed with a key whose public half is in the settings."""
    yield Case(
        verifier=SignedVerifier(replace(OPTIONS, algorithm="RS256", key=public_pem(RSA))),
        good=jwt.encode(CLAIMS, RSA, algorithm="RS256"),
        bad=token(CLAIMS),
        foreign=(authjs_sessions.encrypted(ENCRYPTED), OPAQUE),
        secret=REF_KEY.decode(),
    )


@contextlib.asynccontextmanager
async def with_jwks() -> AsyncIterator[Case]:
    """A JWT signed with a published key."""
    async with running_backend("/jwks.json") as publisher:
        publisher.answers({"keys": [RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True) | {"kid": "one"}]})
        source = JwksClient(publisher.url, read=partial(read_keys, algorithm="RS256"))
        yield Case(
            verifier=SignedVerifier(replace(OPTIONS, algorithm="RS256", key=source)),
            good=jwt.encode(CLAIMS, RSA, algorithm="RS256", headers={"kid": "one"}),
            bad=jwt.encode(CLAIMS, RSA, algorithm="RS256", headers={"kid": "two"}),
            foreign=(authjs_sessions.encrypted(ENCRYPTED), OPAQUE),
            secret=REF_KEY.decode(),
        )


def by_token(authorization: str) -> Response:
    """Answer as a backend that knows one token."""
    known = authorization == f"Bearer {OPAQUE}"
    return JSONResponse(CLAIMS if known else {}, status_code=200 if known else 401)


@contextlib.asynccontextmanager
async def with_backend() -> AsyncIterator[Case]:
    """Whatever the backend takes."""
    async with running_backend() as backend:
        backend.answer = by_token
        yield Case(
            verifier=UpstreamVerifier(UpstreamOptions(me=backend.url, ref_key=REF_KEY)),
            good=OPAQUE,
            bad=token(CLAIMS),
            foreign=("", "two words", "a;b", "\u00e4"),
            secret=OPAQUE,
        )


@contextlib.asynccontextmanager
async def with_authjs(version: int) -> AsyncIterator[Case]:
    """An encrypted cookie."""
    yield Case(
        verifier=AuthjsVerifier(authjs_sessions.OPTIONS),
        good=authjs_sessions.encrypted(ENCRYPTED, version=version),
        bad=authjs_sessions.encrypted(ENCRYPTED, version=version, secret=authjs_sessions.OTHER_SECRET),
        foreign=(token(CLAIMS), OPAQUE, ""),
        secret=authjs_sessions.SECRET,
    )


@contextlib.asynccontextmanager
async def in_a_chain(index: int) -> AsyncIterator[Case]:
    """A chain of all verifiers, with the credentials of one of them. No credential is foreign to a chain."""
    async with with_backend() as last:
        verifier = VerifierChain(
            [SignedVerifier(OPTIONS), AuthjsVerifier(authjs_sessions.OPTIONS), last.verifier]
        )
        good = (token(CLAIMS), authjs_sessions.encrypted(ENCRYPTED), OPAQUE)[index]
        bad = (
            token(CLAIMS | {"token_use": "refresh"}),
            authjs_sessions.encrypted(ENCRYPTED, salt="x"),
            "dead-token-of-nobody",
        )[index]
        yield Case(verifier=verifier, good=good, bad=bad, foreign=(), secret=authjs_sessions.SECRET)


CASES: dict[str, Callable[[], AbstractAsyncContextManager[Case]]] = {
    "signed, secret": with_secret,
    "signed, issuer": with_issuer,
    "signed, PEM": with_pem,
    "signed, JWKS": with_jwks,
    "upstream": with_backend,
    "authjs, v5": partial(with_authjs, 5),
    "authjs, v4": partial(with_authjs, 4),
    "all, signed": partial(in_a_chain, 0),
    "all, authjs": partial(in_a_chain, 1),
    "all, upstream": partial(in_a_chain, 2),
}


@pytest.fixture(params=CASES)
async def case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    """Each verifier in its turn."""
    async with CASES[request.param]() as found:
        yield found
        await found.verifier.aclose()


async def test_a_good_credential_is_a_session(case: Case) -> None:
    """It is a session: who, with which roles, and a reference that is the same wherever the session is seen."""
    for _ in range(2):
        session = await case.verifier.verify(case.good, now=NOW)
        assert isinstance(session, Session), session
        assert (session.subject, session.roles, session.own_id) == ("user-7", ("trader",), True)
        assert session.ref == session_ref(REF_KEY, session_id="session-1", subject="user-7")
        assert session.issued_at == NOW - 60


async def test_a_bad_credential_of_the_verifiers_kind_is_refused(case: Case) -> None:
    """It is refused, and nobody else may be asked."""
    refused = await case.verifier.verify(case.bad, now=NOW)
    assert isinstance(refused, Refusal)
    assert not isinstance(refused, NotMine)
    assert refused.reason in (Reason.SESSION_INVALID, Reason.SESSION_EXPIRED)
    assert str(refused).endswith(".")


async def test_a_credential_of_another_kind_goes_to_the_next_verifier(case: Case) -> None:
    """It is of another kind: the next one is asked, and without a next one it is a refusal all the same."""
    for credential in case.foreign:
        refused = await case.verifier.verify(credential, now=NOW)
        assert isinstance(refused, NotMine), credential
        assert refused.reason is Reason.SESSION_INVALID
        assert str(refused).endswith(".")


async def test_a_credential_of_five_megabytes_is_refused(case: Case) -> None:
    """Five megabytes are refused, whatever they are."""
    for credential in ("a" * 5_000_000, f"{case.good}{'a' * 5_000_000}", "." * 5_000_000):
        assert isinstance(await case.verifier.verify(credential, now=NOW), Refusal)


async def test_a_scoped_token_is_no_session(case: Case) -> None:
    """Not even one that the backend signed, with every claim of a session."""
    for typ in ("scoped+jwt", "application/Scoped+JWT"):
        assert isinstance(await case.verifier.verify(token(CLAIMS, typ=typ), now=NOW), Refusal)


async def test_nothing_is_said_of_secrets(case: Case) -> None:
    """No refusal and no repr quotes a credential or a key."""
    said = repr(case.verifier) + repr(vars(case.verifier))
    for credential in (case.good, case.bad, f"{case.good}x", *case.foreign):
        said += repr(await case.verifier.verify(credential, now=NOW))
    said += repr(case.verifier) + repr(vars(case.verifier))
    for secret in (case.good, case.bad, case.secret, REF_KEY.decode()):
        assert secret not in said


async def test_a_forgotten_session_can_be_verified_again(case: Case) -> None:
    """It can be done before, twice, and for sessions that nobody knows; the session can be verified again."""
    session = await case.verifier.verify(case.good, now=NOW)
    assert isinstance(session, Session)
    for ref in (session.ref, session.ref, "0" * 32, ""):
        case.verifier.forget(ref)
    assert await case.verifier.verify(case.good, now=NOW) == session


def open_sockets() -> int:
    """Count the sockets of this process; both ends of a connection to a test's server are among them."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own descriptor is closed by then
            links.append(entry.readlink().name)
    return sum(link.startswith("socket:") for link in links)


async def test_closing_leaves_no_connection_open(case: Case) -> None:
    """A verifier can be closed before its first check and twice after one, and it can be used again."""
    await case.verifier.aclose()
    before = open_sockets()
    for _ in range(2):
        assert isinstance(await case.verifier.verify(case.good, now=NOW), Session)
        await case.verifier.aclose()
        await case.verifier.aclose()
        async with asyncio.timeout(2):  # a server would drop an idle connection after five seconds
            while open_sockets() > before:  # noqa: ASYNC110  # the server's end closes in another task
                await asyncio.sleep(0)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(max_size=200) | st.text("abcXYZ019-_.=+/~ ", max_size=60))
async def test_any_text_is_refused_without_an_error(case: Case, text: str) -> None:
    """A cookie has whatever somebody put into it: that is a refusal and never an error."""
    try:
        answer = await case.verifier.verify(text, now=NOW)
    except UnavailableError:  # a backend may be asked, and have no answer
        return
    assert isinstance(answer, Refusal)


async def test_the_first_that_knows_it_decides() -> None:
    """A forged token gets no second chance at a later verifier."""
    asked: list[str] = []

    class Lax:
        """Takes everything for a session, and tells."""

        async def verify(
            self, credential: str, *, now: float, grace_s: float = 0, caller: str = ""
        ) -> Session | Refusal:
            asked.append(credential)
            return Session(subject="anybody", roles=(), ref="", own_id=False, issued_at=now)

        def forget(self, ref: str) -> None:
            asked.append(ref)

        async def aclose(self) -> None:
            asked.append("closed")

    verifier = VerifierChain([SignedVerifier(OPTIONS), AuthjsVerifier(authjs_sessions.OPTIONS), Lax()])
    assert isinstance(await verifier.verify(forge({"alg": "HS256"}, CLAIMS, b"x" * 32), now=NOW), Refusal)
    assert isinstance(await verifier.verify(authjs_sessions.encrypted(salt="x"), now=NOW), Refusal)
    assert asked == []
    assert isinstance(await verifier.verify(OPAQUE, now=NOW), Session)
    verifier.forget("ref")
    await verifier.aclose()
    assert asked == [OPAQUE, "ref", "closed"]


async def test_a_credential_that_no_verifier_knows_has_every_finding() -> None:
    """The refusal then says what each of them found."""
    verifier = VerifierChain([SignedVerifier(OPTIONS), AuthjsVerifier(authjs_sessions.OPTIONS)])
    refused = await verifier.verify(OPAQUE, now=NOW)
    assert isinstance(refused, Refusal)
    assert not isinstance(refused, NotMine)
    assert "not a JWT" in str(refused)
    assert "Auth.js" in str(refused)
