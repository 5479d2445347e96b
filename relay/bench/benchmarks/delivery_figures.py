"""The figures of a delivery, and what a reader must know before believing them. Shared by all that fan out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from relay.bench.benchmarks.delivery import Measured
from relay.bench.benchmarks.runs import Run
from relay.bench.report.report import Figure, busy_note, median

KEPT_PACE = 0.97
"""Share of the asked rate below which the pace was not kept."""
ALONE = 1.2
"""Ticks a read up to which each was a write of its own, as the yardstick's are."""

Sides = Sequence[tuple[str, Sequence[Measured]]]

COST: tuple[Figure[Measured], ...] = (
    Figure(
        key="cpu_us_a_delivery",
        name="CPU µs a delivery",
        of=lambda m: m.cpu_us_a_delivery,
        form=".2f",
        has_ratio=True,
    ),
    Figure(key="deliveries_per_s", name="deliveries/s", of=lambda m: m.deliveries_per_s, has_ratio=True),
)
PACE: tuple[Figure[Measured], ...] = (
    Figure(key="published_per_s", name="ticks/s published", of=lambda m: m.published_per_s, form=",.1f"),
    Figure(key="deliveries_a_read", name="deliveries a read", of=lambda m: m.deliveries_a_read, form=".2f"),
    Figure(key="server_cores", name="server CPU, cores", of=lambda m: m.server_cores, form=".2f"),
    Figure(
        key="load_generator_cores", name="load generator CPU, cores", of=lambda m: m.load_cores, form=".2f"
    ),
    Figure(key="delivered", name="delivered", of=lambda m: m.counted.delivered),
    Figure(key="conflated", name="conflated", of=lambda m: m.counted.conflated),
    Figure(key="lost", name="lost", of=lambda m: m.counted.lost),
    Figure(key="repeated", name="repeated", of=lambda m: m.counted.repeated),
)


def latency_figures(
    group: int = 0, *, key: str = "latency", name: str = "latency"
) -> tuple[Figure[Measured], ...]:
    """Return the latency figures of one group of connections."""

    def quantile(what: str) -> Callable[[Measured], float | None]:
        return lambda m: getattr(m.counted.groups[group].windows[0], f"{what}_ms")

    return (
        Figure(key=f"{key}_p50_ms", name=f"{name} p50 ms", of=quantile("p50"), form=".1f", has_ratio=True),
        Figure(key=f"{key}_p99_ms", name=f"{name} p99 ms", of=quantile("p99"), form=".1f", has_ratio=True),
        Figure(key=f"{key}_max_ms", name=f"{name} max ms", of=quantile("max"), form=".1f"),
    )


def sides_of(runs: Sequence[Run[Measured]]) -> Sides:
    """Return each side's name with what it did in all runs."""
    return [("relay", [run.relay for run in runs]), ("yardstick", [run.yardstick for run in runs])]


def delivery_notes(runs: Sequence[Run[Measured]], *, rate: float, interval_ms: int = 0) -> list[str]:
    """Return every doubt as a sentence. `rate` 0: no pace was asked for."""
    found = []
    for side, measured in sides_of(runs):
        found += busy_note(side, [one.load_cores for one in measured])
        found += pace_notes(side, measured, rate)
        found += _late_notes(side, measured)
        if not interval_ms and (conflated := sum(one.counted.conflated for one in measured)):
            due = sum(one.counted.expected for one in measured)
            found.append(
                f"The {side} conflated {conflated:,} of {due:,} deliveries in all runs: a subscriber "
                "whose socket was full got the newest value instead, as channels of mode latest do."
            )
        found += loss_notes(side, measured)
    if interval_ms:
        found.append(
            f"With an interval of {interval_ms} ms a price waits for its end, and only each channel's newest is sent. "
            "The others count as conflated, on both sides."
        )
    if any(run.relay.server_cpu_s is None for run in runs):
        found.append("The relay's CPU is unknown without --pid, the number of its process on this machine.")
    return found


def shared_write_note(runs: Sequence[Run[Measured]]) -> list[str]:
    """Return a sentence if the relay's price of a delivery is not the price of a write."""
    shared = median([run.relay.deliveries_a_read for run in runs])
    if shared is None or shared <= ALONE:
        return []
    return [
        f"The relay put {shared:.1f} ticks into one write, as it does when it has no core to itself. That is most "
        "of its lead here; at a lower --rate each tick is a write of its own."
    ]


def loss_notes(side: str, measured: Sequence[Measured]) -> list[str]:
    """Return a sentence each for what was lost and what came twice."""
    found = []
    if lost := sum(one.counted.lost for one in measured):
        found.append(
            f"The {side} LOST {lost:,} deliveries: a last value, or a message of a stream, never came."
        )
    if repeated := sum(one.counted.repeated for one in measured):
        found.append(f"The {side} sent {repeated:,} deliveries twice.")
    return found


def is_whole(measured: Iterable[Measured]) -> bool:
    """Tell whether everything was delivered once, but for what may be conflated."""
    return not any(one.counted.lost or one.counted.repeated for one in measured)


def all_of(one: Measured) -> Mapping[str, Any]:
    """Return everything about one side of one run."""
    counted: dict[str, Any] = msgspec.to_builtins(one.counted)
    return {
        "open_s": one.open_s,
        "server_cpu_s": one.server_cpu_s,
        "published": one.published,
        "complete": one.complete,
        **counted,
    }


def pace_notes(side: str, measured: Sequence[Measured], rate: float) -> list[str]:
    """Return a sentence if a side did not keep the pace."""
    slowest = min(one.published_per_s for one in measured)
    too_short = all(
        one.complete and one.published < rate for one in measured
    )  # a second says nothing about a pace
    if not rate or slowest >= KEPT_PACE * rate or too_short:
        return []
    return [
        f"The {side} kept no pace of {round(rate, 1):g} ticks/s: it took {slowest:.1f} in one run. "
        "Latencies count from when a tick went out, not from when it was due."
    ]


def _late_notes(side: str, measured: Sequence[Measured]) -> list[str]:
    late = [one.published for one in measured if not one.complete]
    if not late:
        return []
    return [
        f"The {side} was stopped when its time was up; in one run after {min(late):,} ticks. "
        "Its figures are about those."
    ]
