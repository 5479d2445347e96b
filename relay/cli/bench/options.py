"""Options that several benchmarks share, and the bounds that keep every run finite."""

from typing import Annotated

import typer

from relay.core.errors import ConfigurationError

MAX_SUBSCRIBERS = 20_000
"""One address has about 28,000 ports to connect from."""
MAX_TICKS = 10_000_000
MAX_RATE = 1_000_000
MAX_SECONDS = 1800
"""Sessions and connections of the relay that a benchmark starts end after an hour."""

Subscribers = Annotated[int, typer.Option(min=1, max=MAX_SUBSCRIBERS, help="WebSocket connections.")]
Rate = Annotated[float, typer.Option(min=0.1, max=MAX_RATE, help="Ticks a second.")]
Seconds = Annotated[float, typer.Option(min=0.1, max=MAX_SECONDS, help="For how long.")]
Interval = Annotated[
    int,
    typer.Option("--interval", metavar="MS", help="Interval of the prices: 0, 50, 100, 250, 500 or 1000 ms."),
]
Runs = Annotated[int, typer.Option(min=1, max=99, help="Runs of which the medians are shown.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def check_interval(interval_ms: int) -> None:
    """Refuse an interval that the relay does not have: it would use the next longer one, and the yardstick this one.

    Raises:
        ConfigurationError: naming those that there are.
    """
    from relay.core.channels import INTERVALS_MS

    if interval_ms not in INTERVALS_MS:
        intervals = ", ".join(map(str, INTERVALS_MS))
        raise ConfigurationError(f"--interval {interval_ms}: the relay has the intervals {intervals} ms.")
