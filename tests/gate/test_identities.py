"""Whose credential was refused: the record has what is verified, and apart from it what is only claimed."""

import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import connect as connect_publisher
from websockets.exceptions import InvalidStatus

from relay.keys.rotation import revoke
from tests.support.forged_tokens import claims, issuer_key, signed
from tests.support.jws_forgery import forge, header_of
from tests.support.operators import OPERATORS
from tests.support.operators import revoke as cut_off
from tests.support.raw_http import Answer, ask, bearing, knock, upgrade
from tests.support.raw_websocket import open_raw_websocket, text
from tests.support.relay_process import Relay, make_relay
from tests.support.shared_relay import assert_quiet

FOREIGN = "https://evil.example"
SECRET_PART = "Zz-not-in-any-log-zZ"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with an operator, and with a signing key that was replaced and revoked."""
    relay = make_relay(tmp_path_factory.mktemp("identities"), extra=OPERATORS)
    relay.start()
    yield relay
    relay.stop()
    assert_quiet(relay)
    assert SECRET_PART not in relay.audit_path.read_text() + relay.log_path.read_text()


def somebody() -> str:
    """Return the name of a user of no other test."""
    return f"user-{secrets.token_hex(4)}"


async def refusal(relay: Relay, name: str) -> dict[str, Any]:
    """Return the record of a refusal that names somebody, verified or claimed."""

    def wanted(record: dict[str, Any]) -> bool:
        named = [record.get("user", {}).get("id"), *record["relay"].get("claimed", {}).values()]
        return name in named and record["event"]["outcome"] == "failure"

    return await relay.recorded(wanted)


Knock = Callable[[Relay, str], Awaitable[Answer]]


def at(target: str = "/ws/prices", *, origin: str | None = None, method: str = "GET") -> Knock:
    """Return a handshake with the token as a subprotocol."""
    return lambda relay, token: knock(
        relay, target, [*upgrade(relay, origin=origin), bearing(token)], method=method
    )


def in_query(target: str = "/ws/prices", *, plain: bool = False) -> Knock:
    """Return a handshake, or a plain GET, with the token in the query."""
    return lambda relay, token: knock(
        relay, f"{target}?token={token}", [("Host", "x")] if plain else upgrade(relay)
    )


VERIFIED: dict[str, tuple[Knock, dict[str, Any], str, list[str]]] = {
    "an unlisted origin": (at(origin=FOREIGN), {}, "origin_refused", ["origin_mismatch"]),
    "a path of no endpoint": (at("/nowhere"), {}, "path_unknown", []),
    "POST": (at(method="POST"), {}, "method_not_allowed", []),
    "a plain GET": (in_query(plain=True), {}, "not_an_upgrade", []),
    "an interval that is no number": (at("/ws/prices?interval_ms=x"), {}, "handshake_malformed", []),
    "too many channels": (at("/ws/prices?channels=" + "a," * 300), {}, "channels_too_many", []),
    "another endpoint": (at("/ws/depth"), {}, "token_audience", ["wrong_endpoint"]),
    "no origin": (at(origin=""), {}, "origin_missing", ["origin_mismatch"]),
    "expired": (at(), {"iat": -100, "nbf": -100, "exp": -70}, "token_expired", []),
    "not yet valid": (at(), {"iat": 100, "nbf": 100, "exp": 130}, "token_not_yet_valid", []),
    "another issuer": (at(), {"iss": "https://other.example"}, "token_issuer", []),
    "another scope": (at(), {"scope": "admin"}, "token_scope", []),
    "an ended log-in": (at(), {"session_exp": -10}, "session_expired", []),
}


@pytest.mark.parametrize("case", VERIFIED)
async def test_a_refused_genuine_token_names_its_user_and_is_kept(relay: Relay, case: str) -> None:
    """User, jti, kid and marks are in the record, wherever the gate refused it."""
    try_it, changes, reason, marks = VERIFIED[case]
    now = int(time.time())
    moved = {name: now + value if isinstance(value, int) else value for name, value in changes.items()}
    user = somebody()
    payload = claims(relay, sub=user, **moved)
    token = signed(relay, payload)
    answer = await try_it(relay, token)
    assert answer.status >= 400
    record = await refusal(relay, user)
    assert (record["event"]["reason"], record["user"]) == (reason, {"id": user})
    found = record["relay"]["token"]
    assert (found["jti"], found["kid"]) == (payload["jti"], header_of(token)["kid"])
    assert record["relay"].get("anomalies", []) == marks
    assert "claimed" not in record["relay"]
    assert token.rpartition(".")[2] not in str(record)
    if not changes:  # the refusal has not used it up
        assert (await at()(relay, token)).status == 101


def strangers(relay: Relay, user: str) -> dict[str, tuple[Knock, str, str]]:
    """Return tokens that prove nothing: how each comes, the token, and the reason of its refusal."""
    payload = claims(relay, sub=user)
    header = {"typ": "scoped+jwt", "alg": "EdDSA", "kid": issuer_key(relay).kid}
    stranger = Ed25519PrivateKey.generate()
    return {
        "another key": (at(), forge(header, payload, stranger), "token_signature"),
        "an unknown kid": (at(), forge(header | {"kid": "k"}, payload, stranger), "token_key_unknown"),
        "another alg": (at(), forge(header | {"alg": "HS256"}, payload, b"secret"), "token_header"),
        "an unlisted origin": (at(origin=FOREIGN), forge(header, payload, stranger), "origin_refused"),
    }


@pytest.mark.parametrize("case", ["another key", "an unknown kid", "another alg", "an unlisted origin"])
async def test_what_a_forged_token_says_is_marked_as_claimed(relay: Relay, case: str) -> None:
    """No verified field has it, and it causes no anomaly mark."""
    user = somebody()
    try_it, token, reason = strangers(relay, user)[case]
    assert (await try_it(relay, token)).status in (401, 403)
    record = await refusal(relay, user)
    assert record["event"]["reason"] == reason
    assert record["relay"]["claimed"]["user"] == user
    assert set(record["relay"]["claimed"]) == {"user", "jti", "kid"}
    assert record["relay"]["token"] == {"transport": "subprotocol"}
    assert "user" not in record
    assert "anomalies" not in record["relay"]


async def test_a_token_of_a_revoked_key_is_a_claim_with_its_kid(tmp_path: Path) -> None:
    """Somebody else may have the key, so its signature proves nothing any more."""
    relay = make_relay(tmp_path)
    relay.start()
    try:
        user = somebody()
        token, kid = signed(relay, claims(relay, sub=user)), issuer_key(relay).kid
        revoke(relay.folder / "keys", kid, now=time.time())
        await relay.audited("key.rotated")
        assert (await at()(relay, token)).status == 401
        record = await refusal(relay, user)
        assert record["event"]["reason"] == "token_key_unknown"
        assert record["relay"]["detail"] == "The token names a key that was revoked."
        assert record["relay"]["claimed"]["kid"] == kid
        assert "user" not in record
    finally:
        relay.stop()


async def test_a_token_of_another_program_says_nothing(relay: Relay) -> None:
    """The `jti` of a session's token may be the session's id, which does not belong into the log."""
    session = relay.session(sub="another-program", jti=SECRET_PART)
    fields = [*upgrade(relay), bearing(session), ("User-Agent", "another program")]
    assert (await knock(relay, fields=fields)).status == 401
    record = await relay.recorded(lambda one: one.get("user_agent") == {"original": "another program"})
    assert record["event"]["reason"] == "token_header"
    assert "claimed" not in record["relay"]


async def test_a_first_frame_and_a_refresh_name_their_users(relay: Relay) -> None:
    """The token that came as a frame is recorded as one of the handshake is."""
    user, other = somebody(), somebody()
    forged = strangers(relay, user)["another key"][1]
    async with open_raw_websocket(relay.ports[1], "/ws/prices", origin=relay.url) as wire:
        assert await wire.shake() == 101
        wire.send(text(type="auth", token=forged))
        assert (await refusal(relay, user))["relay"]["claimed"]["user"] == user
    async with relay.connect() as socket:
        await socket.send(type="refresh", id=1, token=signed(relay, claims(relay, sub=other)))
        while (await socket.next()).get("id") != 1:  # it is told as well that it has subscribed to nothing
            pass
    record = await refusal(relay, other)
    assert (record["event"]["reason"], record["user"]) == ("token_subject", {"id": other})


SESSIONS: dict[str, tuple[dict[str, Any], str, bool]] = {
    "expired": ({"exp": -1000}, "session_expired", True),
    "not yet valid": ({"iat": 1000, "nbf": 1000}, "session_invalid", False),
    "of another purpose": ({"token_use": "refresh"}, "session_invalid", False),
}


@pytest.mark.parametrize("case", SESSIONS)
async def test_a_refused_session_names_its_user(relay: Relay, case: str) -> None:
    """A session that has ended is verified; one that is none is a claim."""
    changes, reason, is_verified = SESSIONS[case]
    user, now = somebody(), int(time.time())
    moved = {name: now + value if isinstance(value, int) else value for name, value in changes.items()}
    assert (await ask(relay, session=relay.session(sub=user, **moved))).status == 401
    record = await refusal(relay, user)
    assert (record["event"]["action"], record["event"]["reason"]) == ("token.denied", reason)
    assert (record.get("user") == {"id": user}) is is_verified
    assert ("claimed" in record["relay"]) is not is_verified


async def test_a_forged_session_is_a_claim_and_a_revoked_one_is_verified(relay: Relay) -> None:
    """The revoked one has its reference and roles as well."""
    user = somebody()
    head, body, _ = relay.session(sub=user).split(".")
    _, _, signature = relay.session(sub=somebody()).split(".")
    assert (await ask(relay, session=f"{head}.{body}.{signature}")).status == 401
    record = await refusal(relay, user)
    assert (record["relay"]["claimed"], "user" in record) == ({"user": user}, False)
    user = somebody()
    session = relay.session(sub=user)
    assert (await ask(relay, session=session)).status == 200
    await cut_off(relay, sub=user)
    assert (await ask(relay, session=session)).status == 401
    record = await refusal(relay, user)
    assert (record["event"]["reason"], record["user"]) == ("session_revoked", {"id": user})
    assert record["relay"]["session"]["roles"] == ["trader"]


async def test_a_wrong_publisher_key_is_a_claim_by_http_and_by_socket(relay: Relay) -> None:
    """The name may be one that the settings do not have any more. The secret is in no record and no log."""
    for number, way in enumerate(("/v1/publish", "/v1/publish/batch", "/v1/ingest")):
        name = f"removed-{number}"
        key = f"{name}.{SECRET_PART}"
        if way == "/v1/ingest":
            url = relay.internal_url.replace("http", "ws") + way
            with pytest.raises(InvalidStatus):
                await connect_publisher(
                    url, additional_headers={"Authorization": f"Bearer {key}"}, proxy=None
                )
        else:
            assert (await relay.publish_raw(b"{}", key=key, path=way)).status_code == 401
        record = await refusal(relay, name)
        assert record["event"]["action"] == "publish.denied"
        assert (record["relay"]["claimed"], record["relay"]["publisher"]) == ({"publisher": name}, {"id": ""})
    assert (await relay.publish_raw(b"{}", key=SECRET_PART)).status_code == 401  # a secret without its name
    assert (await relay.publish_raw(b"{}", key=f"{SECRET_PART}.x")).status_code == 401


async def test_a_wrong_operator_key_is_a_claim(relay: Relay) -> None:
    """It has the name that it claims, and no operator's id."""
    assert (await relay.get_internal("/v1/stats", key=f"mallory.{SECRET_PART}")).status_code == 401
    record = await refusal(relay, "mallory")
    assert record["event"]["action"] == "operator.action"
    assert (record["relay"]["claimed"], record["relay"]["operator"]) == ({"operator": "mallory"}, {"id": ""})
