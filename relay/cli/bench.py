"""`relay bench`: what the relay costs on this machine, beside a yardstick measured in the same run."""

import contextlib
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from relay.core.errors import ConfigurationError

if TYPE_CHECKING:
    from relay.bench.fanout import FanoutOptions, Run
    from relay.bench.relays import RunningRelay

MAX_SUBSCRIBERS = 20_000
"""One address has about 28,000 ports to connect from."""
MAX_TICKS = 10_000_000
SESSION_VARIABLE = "RELAY_SESSION_TOKEN"

app = typer.Typer(no_args_is_help=True, help="Measure the relay on this machine, beside a yardstick.")


@app.callback()
def bench() -> None:
    """Measure the relay on this machine, beside a yardstick."""


@app.command()
def fanout(
    *,
    subscribers: Annotated[
        int, typer.Option(min=1, max=MAX_SUBSCRIBERS, help="WebSocket connections.")
    ] = 1000,
    rate: Annotated[float, typer.Option(min=0, help="Ticks a second; 0: as fast as it goes.")] = 100,
    ticks: Annotated[int, typer.Option(min=1, max=MAX_TICKS, help="Ticks in all.")] = 500,
    runs: Annotated[int, typer.Option(min=1, max=99, help="Runs of which the medians are shown.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    url: Annotated[
        str, typer.Option(metavar="http://…", help="Public address of a relay that runs already.")
    ] = "",
    publish_url: Annotated[
        str, typer.Option(metavar="http://…", help="With --url: its internal address.")
    ] = "http://127.0.0.1:8002",
    publish_key: Annotated[
        str,
        typer.Option(
            envvar="RELAY_PUBLISH_KEY",
            metavar="NAME.SECRET",
            help="With --url: a publisher key for the channel.",
        ),
    ] = "",
    sessions: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="With --url: session tokens, one a line, used in turn; - is standard input. One alone can be in "
            f"{SESSION_VARIABLE}. By default a session may hold 10 connections and take 30 tokens a minute.",
        ),
    ] = "",
    stream_url: Annotated[
        str,
        typer.Option(
            metavar="ws://…/ws/…", help="With --url: where to connect, if not where the issuer says."
        ),
    ] = "",
    channel: Annotated[
        str, typer.Option(help="The channel to publish to; with --url one that nobody watches.")
    ] = "prices.BENCH",
    pid: Annotated[
        int | None, typer.Option(min=1, help="With --url: the relay's process, to measure its CPU.")
    ] = None,
) -> None:
    """Fan ticks of 150 bytes out to many subscribers; what does one delivery cost?

    Starts a relay of its own, opens each connection with a token of its own,
    publishes over HTTP, and measures websockets.broadcast() under the same
    load in turn. Times depend on the machine: quote the ratios.

    With --url it measures a relay that runs already. It then needs --sessions
    and --publish-key, and limits that let so many in: tokens_per_address,
    tokens_per_session and connections_per_session. TLS is not measured, so
    name the relay's own listeners and not a proxy's.

    Exit code 0: measured; 1: the run failed, or something was lost; 2: the
    command itself was wrong.
    """
    from relay.bench.fanout import FanoutOptions
    from relay.core.channels import check_channel

    if not math.isfinite(rate):
        raise ConfigurationError("--rate is a number of ticks a second; 0 for as fast as it goes.")
    options = FanoutOptions(
        subscribers=subscribers,
        rate=rate,
        ticks=ticks,
        runs=runs,
        channel=check_channel(channel),
        given=_given(url, publish_url, publish_key, sessions, stream_url, pid),
    )
    _measure(options, as_json=as_json)


def _given(
    url: str, publish_url: str, publish_key: str, sessions: str, stream_url: str, pid: int | None
) -> "RunningRelay | None":
    from relay.bench.posting import split_address
    from relay.bench.relays import RunningRelay

    if not url:
        if sessions or stream_url or pid:
            raise ConfigurationError(
                "--sessions, --stream-url and --pid go with --url; without it a relay is started."
            )
        return None
    split_address(url, "http")
    split_address(publish_url, "http")
    if stream_url:
        split_address(stream_url, "ws")
    if not publish_key:
        raise ConfigurationError(
            "--url needs a publisher key, in --publish-key or RELAY_PUBLISH_KEY; "
            "`relay keys publisher NAME` makes one."
        )
    _header_value(publish_key, "--publish-key")
    return RunningRelay(
        issuer=url,
        stream=stream_url,
        internal=publish_url,
        sessions=_read_sessions(sessions),
        publish_key=publish_key,
        pid=pid,
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
    found = [_header_value(line, "--sessions") for line in text.split()]
    if not found:
        raise ConfigurationError(
            f"--url needs session tokens: a file in --sessions, or one in {SESSION_VARIABLE}."
        )
    return found


def _header_value(value: str, option: str) -> str:
    """Return what can be sent in a header as it is."""
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigurationError(f"{option}: a key or token is printable ASCII without spaces.")
    return value


def _measure(options: "FanoutOptions", *, as_json: bool) -> NoReturn:
    from relay.bench import BenchError
    from relay.bench.fanout import measure_fanout
    from relay.bench.report import is_whole, to_json

    try:
        with _ended_by_signals(), _progress(options.ticks) as progress:
            runs = measure_fanout(options, progress)
    except BenchError as error:
        typer.echo(f"relay bench: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(to_json(options, runs)))
    else:
        _print(options, runs)
    raise typer.Exit(0 if is_whole(runs) else 1)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like Ctrl-C does, so that no process and no folder is left behind."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = [(number, signal.signal(number, end)) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextlib.contextmanager
def _progress(ticks: int) -> Iterator[Callable[[str, int], None]]:
    """Show what is going on, on a terminal. Drawn by hand: a thread that draws would cost the measured CPU."""
    if not sys.stderr.isatty():
        yield lambda _what, _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("ticks"))
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=ticks)
        every = max(1, ticks // 50)
        shown = -1

        def show(what: str, done: int) -> None:
            nonlocal shown
            if done == 0 or done // every != shown:
                shown = done // every
                bar.update(task, description=what, completed=done)
                bar.refresh()

        yield show


def _print(options: "FanoutOptions", runs: "list[Run]") -> None:
    from rich.console import Console
    from rich.table import Table

    from relay.bench.report import headline, notes, rows

    headings = ("", "relay", "broadcast()", "ratio")
    lines = [(row.name, row.relay, row.yardstick, row.ratio) for row in rows(runs)]
    if sys.stdout.isatty():
        table = Table(
            title=headline(options), title_justify="left", box=None, header_style="bold", pad_edge=False
        )
        for index, heading in enumerate(headings):
            table.add_column(heading, justify="right" if index else "left")
        for line in lines:
            table.add_row(*line)
        Console().print(table)
    else:
        typer.echo(headline(options))
        widths = [max(len(line[column]) for line in [headings, *lines]) for column in range(4)]
        for line in (headings, *lines):
            name, *figures = line
            cells = [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)]
            typer.echo("  ".join([name.ljust(widths[0]), *cells]).rstrip())
    for note in notes(options, runs):
        typer.echo(note)
