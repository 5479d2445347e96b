"""The server-side refresh over two relays on one engine, with a backend that punishes the reuse of a refresh token."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.responses import Response

from tests.support.cookie_browser import Browser
from tests.support.engines import EngineServer, engine_server
from tests.support.moved_clock import MovedClock
from tests.support.ports import free_ports
from tests.support.raw_http import Answer
from tests.support.relay_process import Relay
from tests.support.rotating_backend import RotatingBackend, rotating_backend
from tests.support.two_relays import two_relays

PORT = free_ports(1)[0]
LEASE_S = 20 + 4.5
_numbers = itertools.count()


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> MovedClock:
    """The wall clock of the engine and of both relays."""
    return MovedClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, clock: MovedClock) -> Iterator[EngineServer]:
    """The engine of both."""
    folder = tmp_path_factory.mktemp("engine")
    with engine_server("redis", folder, environment=clock.environment) as server:
        yield server


@pytest.fixture(scope="module")
def relays(
    tmp_path_factory: pytest.TempPathFactory, engine: EngineServer, clock: MovedClock
) -> Iterator[tuple[Relay, Relay]]:
    """Two relays."""
    bff = f'backend = "http://127.0.0.1:{PORT}"\ntimeout_s = 20\nlogout_path = "/auth/logout"'
    folder = tmp_path_factory.mktemp("relays")
    with two_relays(folder, engine, bff=bff, environment=clock.environment) as both:
        yield both


@pytest.fixture
async def backend() -> AsyncIterator[RotatingBackend]:
    """A backend that rotates."""
    async with rotating_backend(PORT) as running:
        yield running


@pytest.fixture
async def browser(relays: tuple[Relay, Relay], backend: RotatingBackend) -> Browser:
    """A browser that has logged in at the first relay, and whose access token is over."""
    logged_in = Browser(relays[0])
    await logged_in.login(f"user-{next(_numbers)}")
    assert set(backend.logins) == {logged_in.user}
    logged_in.lose_access()
    return logged_in


async def all_refreshed(browsers: list[Browser]) -> list[Answer]:
    """Refresh in all at once. A relay that answers 503, because the engine was away, is asked again."""

    async def refresh(one: Browser) -> Answer:
        while (answer := await one.refresh()).status == 503:  # noqa: ASYNC110  # as it is told
            await asyncio.sleep(float(answer.all("retry-after")[0]))
        return answer

    async with asyncio.timeout(60):
        return await asyncio.gather(*(refresh(one) for one in browsers))


def assert_renewed(browsers: list[Browser], answers: list[Answer], backend: RotatingBackend) -> None:
    """Check that everybody has the newest cookies, and that the backend saw no reuse."""
    assert {answer.status for answer in answers} == {204}
    login = backend.logins[browsers[0].user]
    assert {one.cookies["refresh-token"] for one in browsers} == {login.refresh_token}
    assert login.alive


async def test_twenty_refreshes_over_both_are_one_call(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend
) -> None:
    """All twenty get the same new cookies."""
    backend.hold()
    browsers = [browser.at(relays[n % 2]) for n in range(20)]
    refreshing = asyncio.create_task(all_refreshed(browsers))
    await backend.called(1)
    backend.release()
    assert_renewed(browsers, await refreshing, backend)
    assert backend.refreshes.total() == 1


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_loss_of_the_engines_data_causes_no_second_call(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend, engine: EngineServer, when: str
) -> None:
    """FLUSHALL after the first refresh, or while it runs: who comes with the old cookie gets the new ones."""
    backend.hold()
    first = [browser.at(relays[0])]
    refreshing = asyncio.create_task(all_refreshed(first))
    await backend.called(1)
    if when == "before":
        backend.release()
        await refreshing
    engine.run("FLUSHALL")
    browsers = [browser.at(relays[n % 2]) for n in range(20)]
    late = asyncio.create_task(all_refreshed(browsers))
    backend.release()
    assert_renewed([*first, *browsers], await refreshing + await late, backend)
    assert backend.refreshes.total() == 1


async def test_a_killed_relay_does_not_block_the_session(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend, clock: MovedClock
) -> None:
    """kill -9 of the one that holds the lease: when it is over, the other one calls, and everybody gets an answer."""
    backend.hold()
    backend.answer = lambda: Response(status_code=503)  # it has not rotated when the call ends
    killed = asyncio.create_task(browser.at(relays[1]).refresh())
    await backend.called(1)
    relays[1].kill()
    killed.cancel()
    browsers = [browser.at(relays[0]) for _ in range(20)]
    refreshing = asyncio.create_task(all_refreshed(browsers))
    backend.answer = None
    backend.release()
    relays[1].start()
    assert backend.refreshes.total() == 1
    clock.move(int(LEASE_S) + 1)
    assert_renewed(browsers, await refreshing, backend)
    assert backend.refreshes.total() == 2
    clock.move(0)


async def test_an_answer_that_is_lost_logs_nobody_out(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend
) -> None:
    """The backend cuts the connection: the next caller, at the other relay, tries once."""
    backend.cuts = True
    assert (await browser.at(relays[0]).refresh()).status == 503
    backend.cuts = False
    browsers = [browser.at(relays[1])]
    assert_renewed(browsers, await all_refreshed(browsers), backend)
    assert backend.refreshes.total() == 2


async def test_a_log_out_at_one_ends_the_refresh_at_the_other(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend
) -> None:
    """For good, and while a call runs there: its result is thrown away."""
    backend.hold()
    running = browser.at(relays[1])
    refreshing = asyncio.create_task(running.refresh())
    await backend.called(1)
    assert (await browser.send("POST", "/api/auth/logout")).status == 204
    backend.release()
    assert (await refreshing).status == 401
    assert not running.is_logged_in
    assert backend.logins[browser.user].refresh_token in backend.logouts


async def test_a_spent_cookie_at_the_other_relay_is_recorded_as_theft(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend, clock: MovedClock
) -> None:
    """A minute after the browser has shown its new cookie, the old one is refused wherever it comes."""
    stolen = browser.at(relays[1])
    assert (await browser.refresh()).status == 204
    browser.lose_access()
    assert (await browser.refresh()).status == 204
    clock.move(61)
    assert (await stolen.refresh()).status == 401
    assert not stolen.is_logged_in
    record = await relays[1].audited("session.refresh_denied", reason="refresh_spent")
    assert record["user"]["id"] == browser.user
    assert backend.refreshes.total() == 2
    assert (await browser.at(relays[1]).refresh()).status == 204
    clock.move(0)
