"""`relay listen`: the values that a subscriber gets, as a live table on a terminal and as JSON lines into a pipe.

Events of channels (values, stale states, gaps of a stream) go to standard output, and events of the connection to
standard error. `relay.cli.listen_output` has the formats.
"""

from typing import Annotated

import typer
from rich.console import Console

from relay.cli.listen_output import Board, Lines
from relay.cli.output import run_to_exit
from relay.cli.published_values import PublishedValues
from relay.client import (
    ClientError,
    Closed,
    Event,
    Problem,
    RefreshFailed,
    ScopedToken,
    Snapshot,
    Subscribed,
    Subscriber,
    TokenExpiring,
    Update,
    Welcome,
    fetch_token,
)
from relay.core.errors import ConfigurationError
from relay.core.patterns import check_pattern

TOKEN_CHANNELS = 32
"""Channels that one token may name. For more, the command requests all that the session may see."""


def listen(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="The endpoint, like ws://127.0.0.1:8001/ws/prices. With a publisher's key, the internal "
            "listener, like http://127.0.0.1:8002.",
        ),
    ] = "",
    channels: Annotated[
        list[str] | None, typer.Argument(metavar="CHANNEL", help="Channels, or patterns like 'prices.>'.")
    ] = None,
    *,
    token: Annotated[str, typer.Option("--token", help="A scoped token. It opens one connection.")] = "",
    session_token: Annotated[
        str,
        typer.Option(
            "--session-token",
            envvar="RELAY_SESSION_TOKEN",
            help="The session's access token. With it, every attempt gets a new scoped token from --issuer.",
        ),
    ] = "",
    publisher_key: Annotated[
        str,
        typer.Option(
            "--publisher-key",
            envvar="RELAY_PUBLISH_KEY",
            help="A publisher's key, name.secret. It shows the newest values of the publisher's own channels, "
            "without a token.",
        ),
    ] = "",
    issuer: Annotated[
        str, typer.Option("--issuer", help="The relay's public address.")
    ] = "http://127.0.0.1:8000",
    endpoint: Annotated[
        str,
        typer.Option("--endpoint", help="The endpoint's name. Default: the issuer's default endpoint."),
    ] = "",
    origin: Annotated[
        str, typer.Option("--origin", help="The browser origin that the token is bound to.")
    ] = "",
    interval_ms: Annotated[
        int, typer.Option("--interval-ms", help="At most one value of a channel in so many milliseconds.")
    ] = 0,
    count: Annotated[int, typer.Option("--count", min=0, help="Stop after so many values; 0: never.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines on a terminal as well. A pipe always gets them.")
    ] = False,
) -> None:
    """Show the values of channels as they arrive."""
    if not channels or not url.startswith(("ws://", "wss://", "http://", "https://")):
        raise ConfigurationError(
            "Give the URL of an endpoint, and then channels: relay listen ws://127.0.0.1:8001/ws/prices 'prices.>'"
        )
    if url.startswith(("http://", "https://")):
        if not publisher_key:
            raise ConfigurationError(
                "For the internal listener give --publisher-key (or RELAY_PUBLISH_KEY). The URL of an endpoint begins "
                "with ws:// or wss://."
            )
        names = [check_pattern(channel) for channel in channels]
        run_to_exit(_listen_as_publisher(url, publisher_key, names, interval_ms, count, as_json=as_json))
    if publisher_key and not (token or session_token):
        raise ConfigurationError(
            "With --publisher-key, the URL is that of the internal listener, like http://127.0.0.1:8002. For an "
            "endpoint give --token or --session-token."
        )
    if bool(token) == bool(session_token):
        raise ConfigurationError(
            "Give either --token, which `relay token mint --user NAME` makes, or --session-token (or "
            "RELAY_SESSION_TOKEN)."
        )
    asked = channels if len(channels) <= TOKEN_CHANNELS else None

    async def fresh_token() -> ScopedToken:
        return await fetch_token(
            issuer, session_token, endpoint=endpoint or None, channels=asked, origin=origin or None
        )

    async def main() -> int:
        source = token.strip() or fresh_token
        async with Subscriber(url, source, origin=origin or None) as subscriber:
            await subscriber.subscribe([check_pattern(channel) for channel in channels], interval_ms)
            console = Console()
            view: Lines | Board = Lines(escape=console.is_terminal)
            if console.is_terminal and not as_json:
                view = Board(url, console, server_ms=lambda: subscriber.server_ms)
            return await _listen(subscriber, view, wanted=set(channels), count=count)

    run_to_exit(main())


async def _listen_as_publisher(
    url: str, key: str, channels: list[str], interval_ms: int, count: int, *, as_json: bool
) -> int:
    """Show the newest values of a publisher's channels, until there are enough."""
    source = PublishedValues(url, key, channels, every_s=interval_ms / 1000)
    console = Console()
    view: Lines | Board = Lines(escape=console.is_terminal)
    if console.is_terminal and not as_json:
        view = Board(url, console, server_ms=lambda: source.server_ms)
    shown = 0
    with view:
        async for event in source.events():
            if isinstance(event, str):
                view.say(event)
                continue
            view.show(event)
            shown += isinstance(event, Snapshot | Update)
            if count and shown >= count:
                return 0
    return 0


async def _listen(subscriber: Subscriber, view: Lines | Board, *, wanted: set[str], count: int) -> int:
    """Show events until there are enough, or until no more can come."""
    shown = 0
    welcomed = False
    with view:
        async for event in subscriber:
            if isinstance(event, Welcome):
                welcomed = True
            elif isinstance(event, Closed) and not welcomed:
                # a wrong address must not look like a market without trades
                raise ClientError(f"There is no connection: {event.reason}")
            elif isinstance(event, Subscribed):
                wanted -= {item.channel for item in event.rejected}
            note = _note(event)
            if isinstance(event, TokenExpiring) and not subscriber.can_refresh:
                seconds = event.expires_in_ms / 1000
                note = f"the connection ends in {seconds:.0f} s; with --session-token it would continue"
            if note:
                view.say(note)
            view.show(event)
            if not wanted:
                return 1
            shown += isinstance(event, Snapshot | Update)
            if count and shown >= count:
                return 0
    return 0


def _note(event: Event) -> str:
    """Return the line for standard error about `event`, or "" if there is none."""
    match event:
        case Closed():
            return f"disconnected: {event.code} {event.reason}; trying again in {event.retry_in_s:.1f} s"
        case Problem():
            return f"{event.code}: {event.message}"
        case RefreshFailed(retry_in_s=None):
            return f"the connection could not be refreshed and will end: {event.reason}"
        case RefreshFailed():
            return f"the connection could not be refreshed: {event.reason} Trying again in {event.retry_in_s:.1f} s"
        case Subscribed():
            return "\n".join(
                f"{item.channel} was refused: {item.message or item.code}" for item in event.rejected
            )
        case _:
            return ""
