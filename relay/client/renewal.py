"""Refreshing one connection before its token's end: when, with which token, and what a refusal means.

Fetching a token takes as long as the issuer takes, and prices must not wait for it. So the fetch is a task of its own,
which ends with the connection.
"""

import asyncio
from collections.abc import Callable
from random import Random, SystemRandom

from relay.client.backoff import MAX_WAIT_S, bounded_ms, bounded_s
from relay.client.errors import TokenError
from relay.client.events import RefreshFailed
from relay.client.frames import Problem, Refreshed, Welcome
from relay.client.handshake import TokenSource, resolve_token

RETRY_S = 1.0
"""Shortest wait after a refusal. Usually it is a quarter of the remaining time, so that several attempts fit."""

_TRY_AGAIN = "invalid_token"
"""The relay's code for a token that was too old or already used: a new token may work."""


class Renewal:
    """The refreshing of one connection. `now` is the event loop's time, in seconds.

    `wake` is called when a token has arrived (or was refused) and `poll` must be called.
    """

    def __init__(
        self, source: TokenSource, welcome: Welcome, *, wake: Callable[[], None], random: Random | None = None
    ) -> None:
        self._source = source
        self._wake = wake
        self._random = random or SystemRandom()
        self._server_ms = welcome.ts
        self._life_s = (welcome.expires_at - welcome.ts) / 1000
        self._ends_at = 0.0
        self._fetching: asyncio.Task[str] | None = None
        self._sent_id: int | None = None
        self.due_at: float | None = None

    def warned(self, expires_in_ms: int, now: float) -> None:
        """Schedule the refresh: the connection ends in `expires_in_ms`. Without a token function, do nothing.

        The relay warns a minute before the end. A connection that lives shorter would be warned again right after each
        refresh, so it waits for the second half of its life. Then it waits for a random part of a quarter of the
        remaining time: ten thousand clients that connected in one burst are warned at the same moment.
        """
        left_s = bounded_ms(expires_in_ms)
        self._ends_at = now + left_s
        if (
            callable(self._source)
            and self.due_at is None
            and self._fetching is None
            and self._sent_id is None
        ):
            early_s = max(left_s - self._life_s / 2, 0.0)
            self.due_at = now + early_s + self._random.uniform(0, (left_s - early_s) / 4)

    def is_due(self, now: float) -> bool:
        """Tell whether `poll` has something to do."""
        if self._fetching is not None:
            return self._fetching.done()
        return self.due_at is not None and now >= self.due_at

    def poll(self, now: float) -> str | RefreshFailed | None:
        """Start to fetch a token, or return the fetched one: send it, and then call `sent` with the frame's id.

        Raises:
            ConfigurationError: if the caller's token function returned no token.
        """
        if self._fetching is None:
            self.due_at = None
            self._fetching = asyncio.get_running_loop().create_task(resolve_token(self._source))
            self._fetching.add_done_callback(lambda _: self._wake())
            return None
        try:
            return self._fetching.result()  # kept until `sent`: the sending may be cancelled
        except TokenError as error:
            self._fetching = None
            retry_in_s = self._again(now, error.retry_after_s) if error.retryable else None
            return RefreshFailed(
                code=error.code, reason=error.message, retry_in_s=retry_in_s, status=error.status
            )
        except BaseException:
            self._fetching = None
            raise

    def sent(self, id: int) -> None:
        """Note that the token was sent in the frame with this id."""
        self._fetching = None
        self._sent_id = id

    def refreshed(self, frame: Refreshed, server_ms: int | None, now: float) -> None:
        """Note the connection's new end."""
        self._sent_id = self.due_at = None
        self._life_s = (frame.expires_at - (server_ms or self._server_ms)) / 1000
        self._ends_at = now + self._life_s

    def refused(self, problem: Problem, now: float) -> RefreshFailed | None:
        """Return the event for the caller if `problem` answers our token."""
        if problem.id is None or problem.id != self._sent_id:
            return None
        self._sent_id = None
        retry_after_s = None if problem.retry_after_ms is None else bounded_ms(problem.retry_after_ms)
        may_work = problem.retryable or problem.code == _TRY_AGAIN
        retry_in_s = self._again(now, retry_after_s) if may_work else None
        return RefreshFailed(code=problem.code, reason=problem.message, retry_in_s=retry_in_s)

    def close(self) -> None:
        """Cancel the fetch of a token, if there is one: the connection is gone."""
        task, self._fetching, self.due_at = self._fetching, None, None
        if task is not None:
            # nobody needs its result any more; without this asyncio would log an exception as never retrieved
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            task.cancel()

    def _again(self, now: float, retry_after_s: float | None) -> float | None:
        """Schedule another attempt and return the wait, or None if the connection ends earlier."""
        wait_s = max(RETRY_S, min((self._ends_at - now) / 4, MAX_WAIT_S), bounded_s(retry_after_s or 0.0))
        if now + wait_s >= self._ends_at:
            return None
        self.due_at = now + wait_s
        return wait_s
