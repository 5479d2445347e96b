"""Revocations on one node: what is stored, what is closed, and what happens if the store does not answer."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from relay.core.errors import Reason, UnavailableError
from relay.core.events import Client
from relay.core.revocations import Kind, Target
from relay.keys.rotation import revoke
from relay.keys.watched_folder import WatchedKeys
from relay.state.base import Place
from relay.stream.revoker import Revoker
from tests.support.jws_forgery import claims_of
from tests.support.stream_node import Node, running_node

USER = Target(kind=Kind.USER, name="user-1")


class Store:
    """A state store that remembers what was revoked, or is down."""

    def __init__(self, *, down: bool = False) -> None:
        self.revoked: list[str] = []
        self._down = down

    async def claim(
        self, jti: str, *, expires_at: float, issued_at: float | None = None, place: Place | None = None
    ) -> bool:
        """Not asked for here."""
        raise AssertionError(jti, expires_at)

    async def revoke(self, key: str, *, at: float, until: float) -> None:
        """Remember it."""
        if self._down:
            raise UnavailableError(Reason.STATE_UNAVAILABLE)
        assert until - at == 600
        self.revoked.append(key)

    def revoked_at(self, key: str) -> float | None:
        """Not asked for here."""
        raise AssertionError(key)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A stream."""
    async with running_node(tmp_path) as running:
        yield running


def revoker(node: Node, store: Store, *, forget: Callable[[str], None] = lambda _ref: None) -> Revoker:
    """Return a revoker of this node that keeps revocations for ten minutes."""
    return Revoker(
        state=store,
        registry=node.stream.registry,
        recent_sessions_of=lambda user, _until: {"user-1": ["one", "three"]}[user],
        forget=forget,
        auditor=node.stream._auditor,
        keep_s=600,
    )


async def test_a_user_s_open_sessions_are_revoked_with_the_user(node: Node) -> None:
    """Each session with which the user is connected or recently got tokens is revoked once."""
    store = Store()
    tokens = [node.tickets.token(session=session) for session in ("one", "one", "two")]
    async with (
        node.dial(token=tokens[0]) as a,
        node.dial(token=tokens[1]) as b,
        node.dial(token=tokens[2]) as c,
    ):
        for wire in (a, b, c):
            assert await wire.shake() == 101
            await wire.message("error")
        assert await revoker(node, store).revoke(USER, client=Client(), operator="ops") == 3
        assert [(await wire.ending()).code for wire in (a, b, c)] == [4501] * 3
    assert store.revoked[0] == "sub:user-1"
    assert sorted(store.revoked[1:]) == ["one", "three", "two"]


async def test_a_store_that_is_down_closes_nothing(node: Node) -> None:
    """The caller gets an error, and no connection is closed."""
    async with node.dial() as wire:
        assert await wire.shake() == 101
        await wire.message("error")
        with pytest.raises(UnavailableError):
            await revoker(node, Store(down=True)).revoke(USER, client=Client(), operator="ops")
        assert len(node.connections) == 1


async def test_a_revoked_session_is_forgotten_after_it_is_stored(node: Node) -> None:
    """An answer of the session verifier that comes in between must not outlive the revocation."""
    store, forgotten = Store(), list[tuple[str, list[str]]]()
    session = Target(kind=Kind.SESSION, name="one")
    revoking = revoker(node, store, forget=lambda ref: forgotten.append((ref, list(store.revoked))))
    await revoking.revoke(session, client=Client(), operator="ops")
    assert forgotten == [("one", ["one"])]
    with pytest.raises(UnavailableError):
        await revoker(node, Store(down=True), forget=pytest.fail).revoke(session, client=Client())


def during_claim(node: Node, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[object]]) -> None:
    """Let `act` happen after all of the gate's checks and before the connection is registered."""
    state = node.stream._gate._state
    claim = state.claim

    async def claim_late(jti: str, **options: Any) -> bool:
        await act()
        return await claim(jti, **options)

    monkeypatch.setattr(state, "claim", claim_late)


@pytest.mark.parametrize("kind", Kind)
async def test_what_is_revoked_between_gate_and_registration_ends(
    node: Node, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """The revocation finds no connection yet. So the connection has to find the revocation, and ends at once."""
    token = node.tickets.token(session="one")
    names = {
        Kind.SESSION: "one",
        Kind.USER: "user-1",
        Kind.TOKEN: claims_of(token)["jti"],
        Kind.KEY: node.tickets.key.kid,
    }
    target = Target(kind=kind, name=names[kind])
    state = node.stream._gate._state
    real = Revoker(
        state=state,
        registry=node.stream.registry,
        recent_sessions_of=lambda _user, _until: (),
        forget=lambda _ref: None,
        auditor=node.stream._auditor,
        keep_s=600,
    )

    async def revoke_now() -> None:
        assert await real.revoke(target, client=Client(), operator="ops") == 0

    during_claim(node, monkeypatch, revoke_now)
    async with node.dial("&channels=prices.X", token=token) as wire:
        assert await wire.shake() == 101
        assert (await wire.ending()).code == (4001 if kind is Kind.KEY else 4501)
    await node.empty()


async def test_a_key_that_is_revoked_between_gate_and_registration_opens_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same for the key of the token."""
    keys = node.stream._gate._keys
    assert isinstance(keys, WatchedKeys)

    async def revoke_key() -> None:
        revoke(tmp_path / "keys", node.tickets.key.kid, now=time.time())
        await keys.refresh()

    during_claim(node, monkeypatch, revoke_key)
    async with node.dial() as wire:
        assert await wire.shake() == 101
        assert (await wire.ending()).code == 4001
    await node.empty()
