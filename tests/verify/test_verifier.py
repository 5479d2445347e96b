"""The function that protects an endpoint: what it takes, once, and what it refuses without using it up."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.verify import (
    Claims,
    ConfigurationError,
    MemorySingleUse,
    Reason,
    Refusal,
    UnavailableError,
    Verifier,
)
from relay.verify.sqlite import SqliteSingleUse
from tests.support.backends import Backend, running_backend
from tests.support.ports import free_ports
from tests.support.service_tokens import AUDIENCE, ISSUER, JWKS, bad_tokens, token, verifier


async def reason(verifier: Verifier, text: str, *, origin: str = ISSUER) -> Reason | None:
    """Return why a token is refused; None if it is taken."""
    result = await verifier.verify(text, origin=origin)
    return result.reason if isinstance(result, Refusal) else None


async def test_a_good_token_says_whose_it_is() -> None:
    """The claims of the token, all of them."""
    claims = await verifier().verify(token(session_exp=2_000_000_000), origin=ISSUER)
    assert isinstance(claims, Claims)
    assert (claims.subject, claims.audience, claims.issuer) == ("user-7", AUDIENCE, ISSUER)
    assert (claims.scope, claims.channels, claims.origin) == ("call", (), ISSUER)
    assert claims.session_expires_at == 2_000_000_000


async def test_a_token_is_taken_once() -> None:
    """The second time it is a replay, however it is spelled, and another token is not touched by it."""
    protected, text = verifier(), token()
    assert await reason(protected, text) is None
    assert await reason(protected, text) is Reason.TOKEN_REPLAYED
    assert await reason(protected, f"{text}=") is Reason.TOKEN_MALFORMED
    assert await reason(protected, token()) is None


async def test_of_a_hundred_at_once_one_is_taken(tmp_path: Path) -> None:
    """Whichever store remembers: the claim is atomic."""
    stores = (MemorySingleUse(), SqliteSingleUse.open(tmp_path / "used.db"))
    for store in stores:
        protected, text = verifier(single_use=store), token()
        answers = await asyncio.gather(*(reason(protected, text) for _ in range(100)))
        assert sorted(answers, key=str) == [None] + [Reason.TOKEN_REPLAYED] * 99
    await stores[1].aclose()


EXPECTED = {
    "garbage": Reason.TOKEN_MALFORMED,
    "no signature": Reason.TOKEN_MALFORMED,
    "another signature": Reason.TOKEN_SIGNATURE,
    "too long": Reason.TOKEN_TOO_LARGE,
    "a stranger's key": Reason.TOKEN_SIGNATURE,
    "unknown kid": Reason.TOKEN_KEY_UNKNOWN,
    "another typ": Reason.TOKEN_HEADER,
    "expired": Reason.TOKEN_EXPIRED,
    "not yet valid": Reason.TOKEN_NOT_YET_VALID,
    "an hour's life": Reason.TOKEN_LIFETIME,
    "another issuer": Reason.TOKEN_ISSUER,
    "another service": Reason.TOKEN_AUDIENCE,
    "a path below": Reason.TOKEN_AUDIENCE,
    "a socket's, at this URL": Reason.TOKEN_SCOPE,
    "a socket's": Reason.TOKEN_AUDIENCE,
    "channels": Reason.TOKEN_CLAIMS,
    "a session that has ended": Reason.SESSION_EXPIRED,
}


def test_every_bad_token_has_its_reason() -> None:
    """The table above is about the tokens that there are."""
    assert EXPECTED.keys() == bad_tokens().keys()


@pytest.mark.parametrize("name", EXPECTED)
async def test_bad_tokens_have_exact_reasons(name: str) -> None:
    """For the service's log; its callers are told nothing of it."""
    assert await reason(verifier(), bad_tokens()[name]) is EXPECTED[name]


# --- origin


async def test_a_token_is_for_the_page_that_asked_for_it() -> None:
    """Any other origin is refused, none counts as another, and the token is still good where it belongs."""
    protected, text = verifier(), token()
    for origin in (
        "https://evil.example",
        "null",
        f"{ISSUER}:443",
        f"{ISSUER}/",
        f" {ISSUER}",
        ISSUER.upper(),
    ):
        assert await reason(protected, text, origin=origin) is Reason.TOKEN_ORIGIN
    assert await reason(protected, text, origin="") is Reason.ORIGIN_MISSING
    assert await reason(protected, text) is None


async def test_a_token_without_an_origin_is_for_callers_without_one() -> None:
    """A server's token that got into a page is no good there."""
    protected, text = verifier(), token(origin="")
    assert await reason(protected, text) is Reason.TOKEN_ORIGIN
    assert await reason(protected, text, origin="") is None


async def test_the_service_may_take_fewer_origins_than_the_relay() -> None:
    """Others are refused before the token is looked at; a caller without an origin is not concerned."""
    protected = verifier(origins={"https://admin.example.com"})
    assert await reason(protected, "garbage") is Reason.ORIGIN_REFUSED
    assert await reason(protected, token()) is Reason.ORIGIN_REFUSED
    admin = "https://admin.example.com"
    assert await reason(protected, token(origin=admin), origin=admin) is None
    assert await reason(protected, token(origin=""), origin="") is None


# --- stores and keys that are away


class _Broken:
    async def claim(self, jti: str, *, expires_at: float) -> bool:
        raise UnavailableError(Reason.STATE_UNAVAILABLE, "The disk is full.")


async def test_no_store_no_entrance() -> None:
    """Where single use can't be proven the token is refused, with what the store said for the log."""
    result = await verifier(single_use=_Broken()).verify(token(), origin=ISSUER)
    assert result == Refusal(reason=Reason.STATE_UNAVAILABLE, detail="The disk is full.")


@pytest.fixture
async def issuer() -> AsyncIterator[Backend]:
    """Somebody who publishes the issuer's key."""
    async with running_backend("/.well-known/jwks.json") as running:
        running.answers(JWKS)
        yield running


async def test_keys_are_fetched_when_they_are_needed(issuer: Backend) -> None:
    """Not before the first token, and once for many."""
    protected = verifier(keys=issuer.url)
    assert issuer.calls == []
    assert [await reason(protected, token()) for _ in range(5)] == [None] * 5
    assert len(issuer.calls) == 1
    await protected.aclose()


async def test_garbage_fetches_nothing(issuer: Backend) -> None:
    """What names no key is refused without asking anybody."""
    protected = verifier(keys=issuer.url)
    for text in ("garbage", "A" * 5000, "a.b.c", token({"kid": 7}), token({"kid": None})):
        assert await reason(protected, text) is not None
    assert issuer.calls == []
    await protected.aclose()


async def test_made_up_keys_share_one_look(issuer: Backend) -> None:
    """A flood of tokens with invented kids is no flood at the issuer. Without a look, the answer is "not now"."""
    protected = verifier(keys=issuer.url)
    answers = [await reason(protected, token({"kid": f"kid-{number}"})) for number in range(50)]
    assert set(answers[:2]) == {Reason.TOKEN_KEY_UNKNOWN}
    assert answers[2:] == [Reason.KEYS_UNAVAILABLE] * 48
    assert len(issuer.calls) <= 2
    assert await reason(protected, token()) is None
    await protected.aclose()


async def test_an_issuer_that_was_never_there() -> None:
    """Nobody gets in, and the reason names no setting of the relay's."""
    [port] = free_ports(1)
    protected = verifier(keys=f"http://127.0.0.1:{port}/.well-known/jwks.json")
    result = await protected.verify(token(), origin=ISSUER)
    assert isinstance(result, Refusal)
    assert result.reason is Reason.KEYS_UNAVAILABLE
    assert "tokens." not in str(result)
    await protected.aclose()


async def test_an_issuer_that_goes_away(issuer: Backend) -> None:
    """Keys that are known are believed on, so that its last tokens are not lost."""
    protected = verifier(keys=issuer.url)
    assert await reason(protected, token()) is None
    issuer.answers(status=500)
    assert await reason(protected, token()) is None
    await protected.aclose()


# --- arguments


@pytest.mark.parametrize(
    ("argument", "value", "complaint"),
    [
        ("issuer", "https://app.example.com/", "issuer must be public.url"),
        ("issuer", "https://app.example.com/auth", "issuer must be public.url"),
        ("issuer", "HTTPS://app.example.com", "issuer must be public.url"),
        ("issuer", "app.example.com", "issuer must be an http or https URL"),
        ("issuer", "", "issuer must be an http or https URL"),
        ("audience", "", "audience must be an http or https URL"),
        ("audience", "reports", "audience must be an http or https URL"),
        ("audience", "wss://stream.example.com/ws/prices", "audience must be an http or https URL"),
        ("audience", "https://reports.example.com", "audience must be the url of"),
        ("audience", "https://[reports/", "audience must be an http or https URL"),
        ("keys", "http://app.example.com/.well-known/jwks.json", "https://"),
        ("keys", {}, "keys can't be used"),
        ("keys", {"keys": []}, "keys has no Ed25519 key"),
        ("keys", {"keys": [{"kty": "oct", "k": "AAAA"}]}, "private or secret key"),
        ("origins", "https://app.example.com", "origins must be a set"),
    ],
)
def test_invalid_arguments_are_a_configuration_error(argument: str, value: Any, complaint: str) -> None:
    """One sentence when the service starts, and not a refusal of every call later."""
    with pytest.raises(ConfigurationError, match=complaint):
        verifier(**{argument: value})


async def test_the_token_is_in_no_repr() -> None:
    """Neither of what comes back nor of the verifier."""
    protected, text = verifier(), token()
    shown = repr(protected) + repr(await protected.verify(text, origin=ISSUER))
    shown += repr(await protected.verify(text, origin=ISSUER))
    assert not [part for part in text.split(".") if part in shown]
