"""`relay publish`: one value from the command line, or JSON lines (`relay.cli.ndjson`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.ndjson import opened, publish_lines
from relay.cli.options import DEFAULT_URL, PublishKeyOption, UrlOption, require_publish_key
from relay.cli.output import run_to_exit, say_wait
from relay.client import Publisher
from relay.core.errors import ConfigurationError
from relay.core.patterns import check_channel

ONE_VALUE_ATTEMPTS = 3
"""A person waits for the answer. A wrong address is reported within two seconds."""


def publish(
    channel: Annotated[
        str, typer.Argument(metavar="CHANNEL", help="An exact channel. Leave it out with --envelope.")
    ] = "",
    value: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="The value. Without it, each line of standard input is a value."),
    ] = None,
    *,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="A file of JSON lines; repeat it for several, in their order. - is standard input.",
        ),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    key: PublishKeyOption = "",
    envelope: Annotated[
        bool, typer.Option("--envelope", help='Lines are {"channel": …, "data": …} and name their channel.')
    ] = False,
) -> None:
    """Publish one JSON value, or JSON lines from files or standard input.

    Each line that fails is named on standard error, and the others are
    still published.

    Exit code 0: all lines were published; 1: some were not; 2: the command
    itself was wrong.
    """
    if envelope == bool(channel):
        raise ConfigurationError("Name a channel, or give --envelope and lines that name their channels.")
    if value is not None and files:
        raise ConfigurationError("Give either a value or --file.")
    require_publish_key(key)
    if value is not None:
        run_to_exit(_publish_one(url, key, channel, value))
    if channel:
        check_channel(channel)
    run_to_exit(_publish_lines(Publisher(url, key, on_reconnect=say_wait), files or [], channel))


async def _publish_one(url: str, key: str, channel: str, value: str) -> int:
    async with Publisher(
        url, key, transport="http", attempts=ONE_VALUE_ATTEMPTS
    ) as publisher:  # its answer has the seq
        receipt = await publisher.publish(channel, value)
    print(f"{receipt.channel} seq {receipt.seq} epoch {receipt.epoch}")
    return 0


async def _publish_lines(publisher: Publisher, files: Sequence[Path], channel: str) -> int:
    with opened(files) as sources:
        return 1 if await publish_lines(publisher, sources, channel) else 0
