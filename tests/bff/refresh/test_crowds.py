"""A hundred calls at once after the end of an access token, while the backend, a process or the log-in fails."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from starlette.responses import Response

from tests.support.cookie_browser import Browser
from tests.support.moved_clock import MovedClock
from tests.support.raw_http import Answer
from tests.support.relay_process import Relay, make_relay
from tests.support.rotating_backend import RotatingBackend

HOUR_S = 3600
CALLS = (Browser.refresh, Browser.ask, Browser.me, Browser.proxy)


class Crowd:
    """A hundred requests with the same old cookies, over several processes, of all kinds that renew a session."""

    def __init__(self, browser: Browser, relays: tuple[Relay, ...]) -> None:
        self.browsers = [browser.copy(relays[n % len(relays)]) for n in range(100)]
        self._tasks = [
            asyncio.create_task(_served(CALLS[n // len(relays) % len(CALLS)], one))
            for n, one in enumerate(self.browsers)
        ]

    async def answers(self) -> list[Answer]:
        return await asyncio.gather(*self._tasks)

    @property
    def refresh_cookies(self) -> set[str]:
        return {one.cookies.get("refresh-token", "") for one in self.browsers}


async def _served(call: Callable[[Browser], Awaitable[Answer]], browser: Browser) -> Answer:
    """Call, and call again if a relay on a busy machine sent the call away before it looked at it."""
    while "More requests came" in (answer := await call(browser)).body.decode():  # noqa: ASYNC110  # as it is told
        await asyncio.sleep(float(answer.all("retry-after")[0]))
    return answer


def assert_renewed(crowd: Crowd, answers: list[Answer], backend: RotatingBackend, user: str) -> None:
    """Check that everybody has an answer and the newest cookies, and that the backend saw no reuse."""
    assert {answer.status for answer in answers} == {200, 204}
    assert crowd.refresh_cookies == {backend.logins[user].refresh_token}
    assert backend.logins[user].alive
    assert backend.most_at_once == 1


@pytest.mark.parametrize("answers_after_s", [0, 3])
async def test_row_1_a_hundred_calls_at_once_cause_one_refresh(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend, answers_after_s: float
) -> None:
    """At once, and with a backend that takes three seconds: a hundred answers, nobody logged out."""
    backend.hold()
    crowd = Crowd(browser, relays)
    await backend.called(1)
    asyncio.get_running_loop().call_later(answers_after_s, backend.release)
    assert_renewed(crowd, await crowd.answers(), backend, browser.user)
    assert backend.refreshes.total() == 1


@pytest.mark.parametrize("how", ["503", "cut"])
async def test_row_1_a_backend_without_an_answer_logs_none_of_a_hundred_out(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend, how: str
) -> None:
    """503 for all, the cookies stay, no two calls at one time; and one is enough as soon as the backend is well."""
    backend.hold()
    if how == "cut":
        backend.cuts = True
    else:
        backend.answer = lambda: Response(status_code=503)
    crowd = Crowd(browser, relays)
    await backend.called(1)
    backend.release()
    answers = await crowd.answers()
    assert {answer.status for answer in answers} == {503}
    assert all(answer.json["retryable"] and answer.all("retry-after") for answer in answers)
    assert crowd.refresh_cookies == {browser.cookies["refresh-token"]}
    assert backend.most_at_once == 1
    backend.answer, backend.cuts = None, False
    asked = backend.refreshes.total()
    crowd = Crowd(browser, relays)
    assert_renewed(crowd, await crowd.answers(), backend, browser.user)
    assert backend.refreshes.total() == asked + 1


async def test_a_log_out_in_the_middle_wins_over_a_hundred(
    browser: Browser, relays: tuple[Relay, Relay], backend: RotatingBackend
) -> None:
    """The result of the refresh that runs is thrown away; the backend is told that its tokens are not needed."""
    backend.hold()
    crowd = Crowd(browser, relays)
    await backend.called(1)
    assert (await browser.send("POST", "/api/auth/logout")).status == 204
    backend.release()
    assert {answer.status for answer in await crowd.answers()} == {401}
    assert crowd.refresh_cookies == {""}
    assert backend.refreshes.total() == 1
    assert backend.logins[browser.user].refresh_token in backend.logouts


@pytest.fixture
def third(
    relays: tuple[Relay, Relay], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[Relay, MovedClock]]:
    """A third process with the same state file and clocks that can be moved. The parameter is its `bff.timeout_s`."""
    bff = (relays[0].folder / "relay.toml").read_text().partition('backend = "')[2].partition('"')[0]
    clock = MovedClock(tmp_path)
    relay = make_relay(
        tmp_path / "third", bff=f'backend = "{bff}"\ntimeout_s = {request.param}\n[bff.proxy.routes."/users"]'
    )
    relay.environment = relays[0].environment | clock.environment
    relay.start()
    yield relay, clock
    relay.kill()


@pytest.mark.parametrize("third", [0.5], indirect=True)
async def test_a_killed_process_does_not_block_the_session(
    browser: Browser, relays: tuple[Relay, Relay], third: tuple[Relay, MovedClock], backend: RotatingBackend
) -> None:
    """kill -9 of the one that holds the lease: another one calls when the lease is over, and all get an answer."""
    backend.hold()
    backend.answer = lambda: Response(status_code=503)  # it has not rotated when the call ends
    killed = asyncio.create_task(browser.copy(third[0]).refresh())
    await backend.called(1)
    third[0].kill()
    killed.cancel()
    crowd = Crowd(browser, relays)
    backend.answer = None
    backend.release()
    answers = await crowd.answers()
    assert_renewed(crowd, answers, backend, browser.user)
    assert backend.refreshes.total() == 2


@pytest.mark.parametrize("third", [20], indirect=True)
async def test_a_lost_answer_is_made_good_an_hour_later(
    browser: Browser, third: tuple[Relay, MovedClock], backend: RotatingBackend
) -> None:
    """By both clocks: the new access token is over, so the newest refresh token is redeemed for the browser, once."""
    relay, clock = third
    lost = browser.copy(relay)
    assert (await browser.copy(relay).refresh()).status == 204
    clock.move(HOUR_S, steady=HOUR_S)
    backend.ahead_s = HOUR_S
    crowd = Crowd(lost, (relay,))
    assert_renewed(crowd, await crowd.answers(), backend, browser.user)
    assert backend.refreshes.total() == 2


@pytest.mark.parametrize("third", [5], indirect=True)
async def test_a_spent_cookie_is_in_the_log_when_it_is_answered(
    browser: Browser, third: tuple[Relay, MovedClock]
) -> None:
    """kill -9 after the answer: what looks like theft is not lost."""
    relay, clock = third
    thief, owner = browser.copy(relay), browser.copy(relay)
    assert (await owner.refresh()).status == 204
    owner.lose_access()
    assert (await owner.refresh()).status == 204
    clock.move(61, steady=61)  # the browser has shown its newer cookie long ago
    assert (await thief.refresh()).status == 401
    relay.kill()
    events = [record["event"] for record in relay.audit()]
    assert [event["reason"] for event in events if event["action"] == "session.refresh_denied"] == [
        "refresh_spent"
    ]
