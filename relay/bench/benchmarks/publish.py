"""`relay bench publish`: how many messages a second a backend gets in, and whether each arrives once and in order.

Two loads on one relay, one after the other. In the first one publisher of the Python SDK sends over one connection to
channels of mode `stream`, each of which has a subscriber that misses nothing: each message was acked, arrived once, and
in its channel's order. In the second single POST requests go to the same relay, and, as the yardstick, to a route that
does nothing on the same server.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from relay.bench.benchmarks.delivery import Measured, deliver, opened, patience_s
from relay.bench.benchmarks.delivery_figures import all_of as all_of_delivery
from relay.bench.benchmarks.delivery_figures import is_whole, loss_notes, pace_notes
from relay.bench.benchmarks.issue import Where, ask, empty_route
from relay.bench.benchmarks.runs import FILES_BESIDE, STALL_S, Progress, Run, Told, in_turn
from relay.bench.load.processes import allow_open_files, cpu_of
from relay.bench.load.relay_process import own_relay
from relay.bench.load.requester import Asked
from relay.bench.load.servers import relay_subject
from relay.bench.load.subscribers import GroupOrder
from relay.bench.load.ticks import QUOTE, Ticks
from relay.bench.report.report import Figure, Report, busy_note, make_report

SLOW_RATE = 1000.0
"""Messages a second that any machine takes: the bound for a flood is what they would need at this rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishOptions:
    """What to measure: `messages` of the SDK to `channels` at `rate` a second (0: as fast as they are taken), and then
    `singles`, single requests one after the other (0: none).
    """

    messages: int
    channels: int
    rate: float
    singles: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What the SDK's publisher brought in, and the CPU seconds of its process."""

    measured: Measured
    own_cpu_s: float

    @property
    def own_cores(self) -> float:
        """How much of a core the publisher used while it published."""
        seconds = self.measured.published / self.measured.published_per_s
        return self.own_cpu_s / seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One side of one run. The yardstick takes single requests and nothing else."""

    sent: Sent | None
    singles: Asked | None


def measure_publish(options: PublishOptions, progress: Progress) -> Report:
    """Make all runs.

    Raises:
        BenchError: if one could not be made; in one sentence.
        ConfigurationError: if the machine does not allow as many open files.
    """
    allow_open_files(options.channels + FILES_BESIDE)
    total = options.messages + options.singles

    def relay(folder: Path, told: Told) -> Published:
        with own_relay(folder, sessions=options.channels) as running:
            assert running.pid is not None
            ticks = _ticks(options)
            with relay_subject(
                folder, ticks, sessions=0, given=running, program="relay.bench.load.sdk_publisher"
            ) as subject:
                groups = [
                    GroupOrder(
                        target=subject.target([channel], endpoint="trades"),
                        connections=1,
                        stream=True,
                        places=(place,),
                    )
                    for place, channel in enumerate(ticks.channels)
                ]
                each = options.messages // options.channels
                with opened(subject, groups, ticks, folder, ticks_each=each) as delivery:
                    cpu = cpu_of(subject.source.pid)
                    within_s = patience_s(options.messages / (options.rate or SLOW_RATE))
                    measured = deliver(
                        delivery,
                        within_s=within_s,
                        total=total,
                        told=lambda done, total, _: told(done, total, "messages"),
                    )
                    sent = Sent(measured=measured, own_cpu_s=cpu_of(subject.source.pid) - cpu)
            where = Where(
                url=running.internal, path="/v1/publish", bearers=[running.publish_key], pid=running.pid
            )
            return Published(sent=sent, singles=_singles(options, where, folder, told))

    def yardstick(folder: Path, told: Told) -> Published:
        with empty_route(folder) as where:
            return Published(sent=None, singles=_singles(options, where, folder, told))

    return publish_report(options, in_turn(options.runs, progress, relay=relay, yardstick=yardstick))


def _ticks(options: PublishOptions) -> Ticks:
    return Ticks(
        run=secrets.token_hex(4),
        channels=[f"trades.BENCH{place}" for place in range(options.channels)],
        rate=options.rate,
        count=options.messages,
        streams=frozenset(range(options.channels)),
    )


def _singles(options: PublishOptions, where: Where, folder: Path, told: Told) -> Asked | None:
    if not options.singles:
        return None
    return ask(
        where,
        folder,
        requests=options.singles,
        parallel=1,
        first=0,
        body=(b'{"channel":"prices.BENCH","data":%b}' % QUOTE).decode(),
        told=lambda done: told(options.messages + done, options.messages + options.singles, "messages"),
    )


FIGURES: tuple[Figure[Published], ...] = (
    Figure(
        key="messages_per_s",
        name="SDK: messages/s, one connection",
        of=lambda side: side.sent.measured.published_per_s if side.sent else None,
    ),
    Figure(
        key="cpu_us_a_message",
        name="SDK: the relay's CPU µs a message",
        of=lambda side: side.sent.measured.cpu_us_a_delivery if side.sent else None,
        form=".1f",
    ),
    Figure(
        key="own_cpu_us_a_message",
        name="SDK: its own CPU µs a message",
        of=lambda side: side.sent.own_cpu_s * 1e6 / side.sent.measured.published if side.sent else None,
        form=".1f",
    ),
    Figure(
        key="relay_cores",
        name="SDK: the relay's CPU, cores",
        of=lambda side: side.sent.measured.server_cores if side.sent else None,
        form=".2f",
    ),
    Figure(
        key="settled",
        name="SDK: acked",
        of=lambda side: side.sent.measured.published if side.sent else None,
    ),
    Figure(
        key="delivered",
        name="SDK: arrived",
        of=lambda side: side.sent.measured.counted.delivered if side.sent else None,
    ),
    Figure(
        key="lost", name="SDK: lost", of=lambda side: side.sent.measured.counted.lost if side.sent else None
    ),
    Figure(
        key="repeated",
        name="SDK: repeated",
        of=lambda side: side.sent.measured.counted.repeated if side.sent else None,
    ),
    Figure(
        key="disordered",
        name="SDK: out of order",
        of=lambda side: side.sent.measured.counted.disordered if side.sent else None,
    ),
    Figure(
        key="singles_per_s",
        name="single requests/s, one connection",
        of=lambda side: side.singles.ok / side.singles.seconds if side.singles else None,
        has_ratio=True,
    ),
    Figure(
        key="cpu_us_a_single",
        name="CPU µs a single request",
        of=lambda side: side.singles.cpu_s / side.singles.requests * 1e6 if side.singles else None,
        has_ratio=True,
    ),
    Figure(
        key="single_p50_ms",
        name="single p50 ms",
        of=lambda side: side.singles.p50_ms if side.singles else None,
        form=".2f",
    ),
    Figure(
        key="single_p99_ms",
        name="single p99 ms",
        of=lambda side: side.singles.p99_ms if side.singles else None,
        form=".2f",
    ),
)


def publish_report(options: PublishOptions, runs: Sequence[Run[Published]]) -> Report:
    """Put the figures together."""
    sent = [run.relay.sent for run in runs if run.relay.sent is not None]
    measured = [one.measured for one in sent]
    notes = pace_notes("relay", measured, options.rate) + loss_notes("relay", measured)
    notes += busy_note("relay", [one.own_cores for one in sent], who="The SDK's publisher")
    if disordered := sum(one.counted.disordered for one in measured):
        notes.append(f"{disordered:,} messages arrived OUT OF their channel's ORDER.")
    if late := [one.published for one in measured if not one.complete]:
        notes.append(
            f"The publisher was stopped when its time was up, in one run after {min(late):,} messages."
        )
    refused = sum(run.relay.singles.requests - run.relay.singles.ok for run in runs if run.relay.singles)
    if refused:
        notes.append(f"The relay did not take {refused:,} single requests.")
    pace = f"{options.rate:g} a second" if options.rate else "as fast as they are taken"
    singles = f", then {options.singles:,} single requests" if options.singles else ""
    return make_report(
        "publish",
        FIGURES,
        runs,
        headline=f"publish: {options.messages:,} messages to {options.channels} channels, {pace}{singles}, "
        f"medians of {options.runs}",
        yardstick="empty route",
        yardstick_is="a Starlette route that does nothing, on uvicorn with the relay's settings",
        options={
            "messages": options.messages,
            "channels": options.channels,
            "rate": options.rate,
            "singles": options.singles,
            "stall_s": STALL_S,
        },
        notes=notes,
        is_whole=is_whole(measured) and not disordered and not refused,
        charted=("cpu_us_a_single",),
        all_of=_all_of,
    )


def _all_of(side: Published) -> Mapping[str, Any]:
    return {
        "sent": None if side.sent is None else dict(all_of_delivery(side.sent.measured)),
        "singles": msgspec.to_builtins(side.singles),
    }
