"""A relay that runs already, as the options of a benchmark name it: its addresses, a key, sessions."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.core.errors import ConfigurationError

if TYPE_CHECKING:
    from relay.bench.load.relay_process import RunningRelay

SESSION_VARIABLE = "RELAY_SESSION_TOKEN"

Url = Annotated[str, typer.Option(metavar="http://…", help="Public address of a relay that runs already.")]
PublishUrl = Annotated[str, typer.Option(metavar="http://…", help="With --url: its internal address.")]
PublishKey = Annotated[
    str,
    typer.Option(
        envvar="RELAY_PUBLISH_KEY", metavar="NAME.SECRET", help="With --url: a publisher key for the channel."
    ),
]
Sessions = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="With --url: session tokens, one a line, used in turn; - is standard input. One alone can be in "
        f"{SESSION_VARIABLE}. By default a session may hold 10 connections and take 30 tokens a minute.",
    ),
]
StreamUrl = Annotated[
    str,
    typer.Option(metavar="ws://…/ws/…", help="With --url: where to connect, if not where the issuer says."),
]
Pid = Annotated[int | None, typer.Option(min=1, help="With --url: the relay's process, to measure its CPU.")]


def given_relay(
    url: str, publish_url: str, publish_key: str, sessions: str, stream_url: str, pid: int | None
) -> "RunningRelay | None":
    """Return the relay that the options name, None if they name none.

    Raises:
        ConfigurationError: with what is missing or can't be meant.
    """
    from relay.bench.load.http_post import split_address
    from relay.bench.load.relay_process import RunningRelay

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
