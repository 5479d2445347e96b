"""What a refresher does with spent cookies, with sealed tokens, and with faults in the middle of a refresh."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.bff.backend import Tokens
from relay.bff.refresh import Refreshed, Refresher, RefreshOptions
from relay.bff.sealed_tokens import Seal
from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.events import Action, Client, Event
from relay.sessions.base import Ended, EndedRefusal, Session
from relay.state.families import Succeeded
from relay.state.sqlite_families import SqliteFamilies

HERE, ELSEWHERE = Client(address="192.0.2.1"), Client(address="198.51.100.9")


class Notes:
    """An auditor that keeps the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def note(self, event: Event) -> None:
        self.events.append(event)

    async def note_refusal(self, event: Event) -> None:
        self.events.append(event)

    async def record(self, event: Event) -> None:
        self.events.append(event)

    async def aclose(self) -> None:
        return


class World:
    """A refresher with a real store, a clock that the test moves, and a backend of a few lines."""

    def __init__(self, path: Path, *, ref_key: bytes = b"k" * 32, reuse_ends_session: bool = False) -> None:
        self.now = 1000.0
        self.auditor = Notes()
        self.families = SqliteFamilies.open(path, steady=lambda: self.now)
        self.calls = 0
        self.ended: list[tuple[str, str]] = []
        self.thrown_away: list[str] = []
        self.verdict: Session | Refusal | UnavailableError = self.session()
        self.refresher = Refresher(
            RefreshOptions(
                timeout_s=5,
                keep_s=86_400,
                unconfirmed_s=3600,
                reuse_ends_session=reuse_ends_session,
                ref_key=ref_key,
            ),
            families=self.families,
            redeem=self._redeem,
            authenticate=self._authenticate,
            end_session=self._end,
            logout=self._logout,
            auditor=self.auditor,
        )

    @staticmethod
    def session(subject: str = "u1") -> Session:
        return Session(subject=subject, roles=(), ref="ref-1", own_id=True, issued_at=time.time())

    async def _redeem(self, _token: str, _client: Client) -> Tokens | Refusal:
        self.calls += 1
        return Tokens(access_token=f"access-{self.calls}", refresh_token=f"refresh-{self.calls}")

    async def _authenticate(self, _token: str, _logged_in_at: float) -> Session | Refusal:
        if isinstance(self.verdict, UnavailableError):
            raise self.verdict
        return self.verdict

    async def _end(self, ref: str, user: str) -> None:
        self.ended.append((ref, user))

    async def _logout(self, token: str) -> None:
        self.thrown_away.append(token)

    async def aclose(self) -> None:
        await self.refresher.aclose()
        await self.families.aclose()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world in which a user has logged in with the refresh token `refresh-0`."""
    made = World(tmp_path / "state.db")
    await made.refresher.begin(made.session(), "refresh-0", HERE)
    yield made
    await made.aclose()


def tokens(result: Any) -> tuple[str, ...]:
    """Return the tokens of a refresh that went well."""
    assert isinstance(result, Refreshed), result
    return result.tokens.tokens


async def test_a_spent_cookie_is_refused_for_good(world: World) -> None:
    """A minute after the browser has shown its successor; the record has the user, and nobody calls the backend."""
    await world.refresher.refresh("refresh-0", HERE)
    await world.refresher.show("refresh-1")
    world.now += 61
    result = await world.refresher.refresh("refresh-0", ELSEWHERE)
    assert isinstance(result, EndedRefusal)
    assert (result.reason, result.ended) == (Reason.REFRESH_SPENT, Ended.REFRESH_SPENT)
    assert world.calls == 1
    assert world.ended == []
    denied = world.auditor.events[-1]
    assert (denied.action, denied.user) == (Action.SESSION_REFRESH_DENIED, "u1")
    assert tokens(await world.refresher.refresh("refresh-1", HERE)) == ("access-2", "refresh-2")


async def test_a_spent_cookie_ends_the_log_in_if_the_setting_says_so(tmp_path: Path) -> None:
    """The session is revoked, as an operator would."""
    world = World(tmp_path / "state.db", reuse_ends_session=True)
    await world.refresher.begin(world.session(), "refresh-0", HERE)
    await world.refresher.refresh("refresh-0", HERE)
    await world.refresher.show("refresh-1")
    world.now += 61
    await world.refresher.refresh("refresh-0", ELSEWHERE)
    assert world.ended == [("ref-1", "u1")]
    await world.aclose()


@pytest.mark.parametrize(("client", "marked"), [(HERE, False), (ELSEWHERE, True)], ids=["same", "other"])
async def test_a_late_old_cookie_from_another_address_is_an_anomaly(
    world: World, client: Client, marked: bool
) -> None:
    """It gets the new tokens within the minute, because a phone changes its network, and the log says so."""
    await world.refresher.refresh("refresh-0", HERE)
    await world.refresher.show("refresh-1")
    assert tokens(await world.refresher.refresh("refresh-0", client)) == ("access-1", "refresh-1")
    assert ("anomalies" in world.auditor.events[-1].relay) is marked


async def test_tokens_are_sealed_in_the_file(world: World, tmp_path: Path) -> None:
    """Neither the file nor its log has a token, and another `ref_key` can't open them."""
    await world.refresher.refresh("refresh-0", HERE)
    data = b"".join((tmp_path / name).read_bytes() for name in ("state.db", "state.db-wal"))
    for token in (b"access-1", b"refresh-0", b"refresh-1"):
        assert token not in data
    key = world.refresher.key_of("refresh-0")
    taken = await world.families.take(key, lease_s=1, unconfirmed_s=99, keep_s=99)
    assert isinstance(taken, Succeeded)
    with pytest.raises(UnavailableError, match=r"session\.ref_key"):
        Seal(b"x" * 32).open(taken.sealed, key)
    assert Seal(b"k" * 32).open(taken.sealed, key).access_token == "access-1"


async def test_a_check_that_fails_for_a_moment_loses_no_token(world: World) -> None:
    """The old refresh token is spent at the backend by then: the new one is stored, and the next request gets it."""
    world.verdict = UnavailableError(Reason.KEYS_UNAVAILABLE, "no keys")
    with pytest.raises(UnavailableError):
        await world.refresher.refresh("refresh-0", HERE)
    world.verdict = world.session()
    assert tokens(await world.refresher.refresh("refresh-0", HERE)) == ("access-1", "refresh-1")
    assert world.calls == 1


async def test_the_tokens_of_another_user_are_never_handed_out(world: World) -> None:
    """A backend that mixes two users up ends this log-in, and its tokens are thrown away."""
    world.verdict = world.session("u2")
    with pytest.raises(UnavailableError, match="another user"):
        await world.refresher.refresh("refresh-0", HERE)
    assert world.thrown_away == ["refresh-1"]
    world.verdict = world.session()
    result = await world.refresher.refresh("refresh-0", HERE)
    assert isinstance(result, EndedRefusal)
    assert world.calls == 1


async def test_a_caller_that_goes_away_does_not_end_the_call(world: World) -> None:
    """The result is stored, because the backend has rotated."""
    caller = asyncio.create_task(world.refresher.refresh("refresh-0", HERE))
    await asyncio.sleep(0)
    caller.cancel()
    await world.refresher.aclose()
    assert tokens(await world.refresher.refresh("refresh-0", HERE)) == ("access-1", "refresh-1")
    assert world.calls == 1
