"""`relay publish`: one value from the command line, or JSON lines (`relay.cli.pouring`)."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from relay.cli.pouring import opened, pour
from relay.client import Publisher
from relay.core.errors import ConfigurationError, MalformedError, RelayError
from relay.core.patterns import check_channel

DEFAULT_URL = "http://127.0.0.1:8002"
ONE_VALUE_ATTEMPTS = 3
"""A person waits for the answer: a wrong address is told within two seconds."""

UrlOption = Annotated[str, typer.Option("--url", help="The relay's internal address.")]
KeyOption = Annotated[
    str,
    typer.Option(
        "--key",
        envvar="RELAY_PUBLISH_KEY",
        metavar="NAME.SECRET",
        help="The publisher key. The environment variable keeps it out of the process list.",
    ),
]


def publish(
    channel: Annotated[
        str, typer.Argument(metavar="CHANNEL", help="An exact channel; leave it out with --envelope.")
    ] = "",
    value: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="The value. Without it, each line of standard input is one."),
    ] = None,
    *,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="Lines from files, in this order; - is standard input.",
        ),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
    envelope: Annotated[
        bool, typer.Option("--envelope", help='Lines are {"channel": …, "data": …} and name their channel.')
    ] = False,
) -> None:
    """Publish one JSON value, or JSON lines from files or standard input.

    Each line that fails is named on standard error; the others are published
    all the same. Exit code 0: all were published; 1: some were not; 2: the
    command itself was wrong.
    """
    if envelope == bool(channel):
        raise ConfigurationError("Name a channel, or give --envelope and lines that name theirs.")
    if value is not None and files:
        raise ConfigurationError("Give either a value or --file.")
    require_key(key)
    if value is not None:
        run_to_exit(_publish_one(url, key, channel, value))
    if channel:
        check_channel(channel)
    run_to_exit(_publish_lines(Publisher(url, key), files or [], channel))


def require_key(key: str) -> None:
    """Refuse to go on without a publisher key.

    Raises:
        ConfigurationError: if there is none.
    """
    if not key:
        raise ConfigurationError(
            "A publisher key is needed, as --key or in RELAY_PUBLISH_KEY; `relay keys publisher NAME` makes one."
        )


def run_to_exit(main: Coroutine[Any, Any, int]) -> None:
    """Run a command and leave with its exit code: one sentence for what went wrong, and quiet endings.

    Exit codes: 2 for what the caller must mend, 1 for other errors; 130 for Ctrl-C and 141 for a reader of our
    output that has left, which is what shells show for those two.
    """
    try:
        code = asyncio.run(main)
    except (ConfigurationError, MalformedError) as error:
        sys.stderr.write(f"{error}\n")
        code = 2
    except RelayError as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # the interpreter's last flush would complain about the closed pipe once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    raise typer.Exit(code)


async def _publish_one(url: str, key: str, channel: str, value: str) -> int:
    async with Publisher(
        url, key, transport="http", attempts=ONE_VALUE_ATTEMPTS
    ) as publisher:  # tells its seq
        receipt = await publisher.publish(channel, value)
    print(f"{receipt.channel} seq {receipt.seq} epoch {receipt.epoch}")
    return 0


async def _publish_lines(publisher: Publisher, files: Sequence[Path], channel: str) -> int:
    with opened(files) as sources:
        return 1 if await pour(publisher, sources, channel) else 0
