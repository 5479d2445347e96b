"""A connection of the core's protocol, without a socket."""

import json
from collections.abc import Sequence
from typing import Any

from relay.core.errors import Reason
from relay.core.events import Action
from relay.core.hub import Hub
from relay.core.protocol import ClientProtocol, Terms
from relay.core.scope import Scope
from tests.support.hub import Line, line_frame, make_hub

NOW = 1_795_319_000.25
MS = 1_795_319_000_250


class ProtocolConnection:
    """A connection as its client sees it, and what was reported of it."""

    def __init__(
        self, *patterns: str, hub: Hub | None = None, floor_ms: int = 0, age_s: float = 3600
    ) -> None:
        self.hub = hub or make_hub()[0]
        self.line = Line()
        self.subscriber = self.hub.join(self.line, line_frame)
        self.reports: list[tuple[Action, list[str], Reason | None]] = []
        self.now = NOW
        terms = Terms(
            connection="c1",
            scope=Scope(patterns or ("prices.>",)),
            expires_at=NOW + age_s,
            floor_ms=floor_ms,
        )
        self.client = ClientProtocol(
            hub=self.hub, subscriber=self.subscriber, terms=terms, report=self.report, now=NOW
        )

    def report(self, action: Action, channels: Sequence[str], reason: Reason | None) -> None:
        self.reports.append((action, list(channels), reason))

    def open(self, *asked: str) -> list[dict[str, Any]]:
        self.client.open(channels=asked, interval_ms=0, now=self.now)
        return self.line.frames()

    def say(self, **frame: Any) -> list[dict[str, Any]]:
        """Send one frame, which must not end the connection, and return what came back."""
        assert self.client.receive(json.dumps(frame), self.now) is None
        return self.line.frames()

    def wait(self, seconds: float) -> None:
        self.now += seconds


def kinds(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["type"] for frame in frames]
