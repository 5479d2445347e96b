"""What a publisher's key sees of its own channels: `relay listen` asks the internal listener for their newest values.

It asks a few times a second instead of keeping a connection: that needs no token, and goes on after a restart of the
relay as if nothing had been. Values between two questions are not seen. `seq` shows how many there were.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import msgspec

from relay.client import Backoff, ClientError, PublishError, Snapshot, Status, Update
from relay.client.responses import read_problem
from relay.net.http_client import async_client

EVERY_S = 0.25
"""Time between two questions, as often as the table is drawn."""
TIMEOUT_S = 10.0

Seen = Snapshot | Update | Status


class _Value(msgspec.Struct, kw_only=True):
    channel: str
    epoch: str
    seq: int
    ts: int
    state: str
    data: msgspec.Raw
    source_ts: int | None = None


class _Answer(msgspec.Struct):
    ts: int
    values: tuple[_Value, ...]
    more: bool = False


class PublishedValues:
    """The values of a publisher's channels, as events. A `str` is a note about the connection."""

    def __init__(self, url: str, key: str, channels: Sequence[str], *, every_s: float = EVERY_S) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._channels = channels
        self._every_s = max(every_s, EVERY_S)
        self._seen: dict[str, _Value] = {}
        self._states: dict[str, str] = {}
        self._ahead_ms: float | None = None
        self._said_more = False

    @property
    def server_ms(self) -> int | None:
        """The relay's clock in Unix milliseconds, as far as it is known."""
        return None if self._ahead_ms is None else int(time.monotonic() * 1000 + self._ahead_ms)

    async def events(self) -> AsyncIterator[Seen | str]:
        """Ask again and again.

        Raises:
            PublishError: if the relay refuses the key or a channel.
            ClientError: if the first question has no answer.
        """
        backoff = Backoff()
        headers = {"Authorization": f"Bearer {self._key}"}
        async with async_client(self._url, timeout_s=TIMEOUT_S, headers=headers) as client:
            while True:
                try:
                    response = await client.get(
                        f"{self._url}/v1/values", params=[("channel", name) for name in self._channels]
                    )
                    answer = _parse(response.status_code, response.content)
                except (OSError, msgspec.MsgspecError, client_errors()) as error:
                    if self._ahead_ms is None:
                        raise ClientError(f"There is no connection: {self._url} can't be reached.") from error
                    wait_s = backoff.next()
                    yield f"disconnected: {self._url} gives no answer; trying again in {wait_s:.1f} s"
                    for status in self._all_stale():
                        yield status
                    await asyncio.sleep(wait_s)
                    continue
                backoff.reset()
                for event in self._news(answer):
                    yield event
                await asyncio.sleep(self._every_s)

    def _news(self, answer: _Answer) -> list[Seen | str]:
        self._ahead_ms = answer.ts - time.monotonic() * 1000
        events: list[Seen | str] = []
        for value in answer.values:
            before = self._seen.get(value.channel)
            self._seen[value.channel] = value
            if before is None or before.epoch != value.epoch:
                events.append(
                    Snapshot(
                        channel=value.channel,
                        epoch=value.epoch,
                        seq=value.seq,
                        ts=value.ts,
                        raw=value.data,
                        source_ts=value.source_ts,
                    )
                )
            elif value.seq > before.seq:
                events.append(
                    Update(
                        channel=value.channel,
                        seq=value.seq,
                        ts=value.ts,
                        raw=value.data,
                        source_ts=value.source_ts,
                    )
                )
            if self._states.get(value.channel, "live") != value.state:
                events.append(Status(channel=value.channel, state=value.state, since=value.ts))
            self._states[value.channel] = value.state
        shown = {value.channel for value in answer.values}
        for channel in self._seen.keys() - shown:  # the relay has removed it, or was restarted
            del self._seen[channel]
            if self._states.pop(channel, "stale") != "stale":
                events.append(Status(channel=channel, state="stale", since=answer.ts))
        if answer.more and not self._said_more:
            self._said_more = True
            events.append(f"only the first {len(answer.values)} channels are shown; name fewer")
        return events

    def _all_stale(self) -> list[Status]:
        fresh = [channel for channel, state in self._states.items() if state != "stale"]
        self._states |= dict.fromkeys(fresh, "stale")
        return [
            Status(channel=channel, state="stale", since=self.server_ms, cause="link") for channel in fresh
        ]


def client_errors() -> type[Exception]:
    """Return the type of the HTTP client's errors. It is imported late, because commands must start fast."""
    from httpx import HTTPError

    return HTTPError


def _parse(status: int, body: bytes) -> _Answer:
    """Return the answer. Raise `PublishError` for a final refusal, and `OSError` for one that may pass."""
    if status == 200:
        return msgspec.json.decode(body, type=_Answer)
    problem = read_problem(status, body, None)
    if problem.retryable:
        raise OSError(problem.message)
    # the address takes operators' keys too, and its own text speaks of those
    message = "The publisher key is wrong." if problem.code == "invalid_key" else problem.message
    raise PublishError(problem.code, message, status=status)
