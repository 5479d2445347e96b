"""`relay bench fanout`: many subscribers of one channel, and the price of one delivery."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from relay.bench.benchmarks.benchmark import MAX_RATE, MAX_TICKS, Subscribers
from relay.bench.benchmarks.delivery import DeliveryBenchmark, Measured, made_up
from relay.bench.load.servers import RunningRelay, Server
from relay.bench.load.sockets import split_address
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.targets import Target
from relay.bench.load.ticks import Ticks
from relay.bench.report.report import Run, median
from relay.core.errors import ConfigurationError
from relay.core.patterns import check_channel

SESSION_VARIABLE = "RELAY_SESSION_TOKEN"
ALONE = 1.2
"""Ticks a read up to which each was a write of its own, as the yardstick's are."""


@dataclass(frozen=True, kw_only=True)
class Fanout(DeliveryBenchmark):
    """Fan ticks of 150 bytes out to many subscribers; what does one delivery cost?

    Starts a relay of its own, opens each connection with a token of its own,
    publishes over HTTP, and measures websockets.broadcast() under the same
    load in turn. Times depend on the machine: quote the ratios.

    With --url it measures a relay that runs already. It then needs --sessions
    and --publish-key, and limits that accept so many: tokens_per_address,
    tokens_per_session and connections_per_session. TLS is not measured, so
    name the relay's own listeners and not a proxy's.
    """

    NAME = "fanout"
    YARDSTICK = ("broadcast()", "websockets.broadcast() on uvloop")
    CHARTED = ("cpu_us_a_delivery", "latency_p99_ms")
    QUICK = {"subscribers": 200, "ticks": 200}

    subscribers: Subscribers = 1000
    rate: Annotated[
        float, typer.Option(min=0, max=MAX_RATE, help="Ticks a second; 0: as fast as it goes.")
    ] = 100
    ticks: Annotated[int, typer.Option(min=1, max=MAX_TICKS, help="Ticks in all.")] = 500
    url: Annotated[
        str, typer.Option(metavar="http://…", help="Public address of a relay that runs already.")
    ] = field(default="", repr=False)
    publish_url: Annotated[
        str, typer.Option(metavar="http://…", help="With --url: its internal address.")
    ] = field(default="http://127.0.0.1:8002", repr=False)
    publish_key: Annotated[
        str,
        typer.Option(
            envvar="RELAY_PUBLISH_KEY",
            metavar="NAME.SECRET",
            help="With --url: a publisher key for the channel.",
        ),
    ] = field(default="", repr=False)
    sessions: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="With --url: session tokens, one a line, used in turn; - is standard input. One alone can be in "
            f"{SESSION_VARIABLE}. By default a session may hold 10 connections and take 30 tokens a minute.",
        ),
    ] = field(default="", repr=False)
    stream_url: Annotated[
        str,
        typer.Option(
            metavar="ws://…/ws/…", help="With --url: where to connect, if not where the issuer says."
        ),
    ] = field(default="", repr=False)
    channel: Annotated[
        str, typer.Option(help="The channel to publish to; with --url one without subscribers.")
    ] = "prices.BENCH"
    pid: Annotated[
        int | None, typer.Option(min=1, help="With --url: the relay's process, to measure its CPU.")
    ] = field(default=None, repr=False)

    def check(self) -> None:
        check_channel(self.channel)
        _ = self._given

    def headline(self) -> str:
        pace = f"{self.rate:g} ticks/s" if self.rate else "ticks as fast as they go"
        return f"{self.subscribers:,} subscribers, {pace}, {self.ticks:,} ticks"

    def open_files(self) -> int:
        return self.subscribers

    def pace(self) -> tuple[float, float]:
        return self.ticks, self.rate

    def make_ticks(self) -> Ticks:
        return made_up([self.channel], rate=self.rate, count=self.ticks)

    def groups(self, server: Server) -> list[GroupOrder]:
        return [GroupOrder(target=server.target([self.channel]), connections=self.subscribers)]

    def given(self) -> RunningRelay | None:
        return self._given

    def notes(self, runs: Sequence[Run[Measured]]) -> list[str]:
        found = DeliveryBenchmark.notes(self, runs)
        shared = median([run.relay.deliveries_a_read for run in runs])
        if self.rate and shared is not None and shared > ALONE:
            found.append(
                f"The relay put {shared:.1f} ticks into one write, as it does when it has no core to itself. That is "
                "most of its lead here; at a lower --rate each tick is a write of its own."
            )
        return found

    @cached_property
    def _given(self) -> RunningRelay | None:
        if not self.url:
            if self.sessions or self.stream_url or self.pid:
                raise ConfigurationError(
                    "--sessions, --stream-url and --pid go with --url; without it a relay is started."
                )
            return None
        split_address(self.url, "http")
        split_address(self.publish_url, "http")
        if self.stream_url:
            split_address(self.stream_url, "ws")
        if not self.publish_key:
            raise ConfigurationError(
                "--url needs a publisher key, in --publish-key or RELAY_PUBLISH_KEY; "
                "`relay keys publisher NAME` makes one."
            )
        _check_header(self.publish_key, "--publish-key")
        sessions = _read_sessions(self.sessions)
        target = Target(stream=self.stream_url, issuer=self.url, sessions=sessions)
        return RunningRelay(
            target=target, internal=self.publish_url, publish_key=self.publish_key, pid=self.pid
        )


def _read_sessions(source: str) -> list[str]:
    try:
        if source == "-":
            text = sys.stdin.read()
        elif source:
            text = Path(source).read_text("utf-8")
        else:
            text = os.environ.get(SESSION_VARIABLE, "")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--sessions: {source} can't be read: {error}") from None
    found = text.split()
    for one in found:
        _check_header(one, "--sessions")
    if not found:
        raise ConfigurationError(
            f"--url needs session tokens: a file in --sessions, or one in {SESSION_VARIABLE}."
        )
    return found


def _check_header(value: str, option: str) -> None:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigurationError(f"{option}: a key or token is printable ASCII without spaces.")
