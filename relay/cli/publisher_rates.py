"""`relay publishers`: the publishers of a running relay and their rates.

The relay only counts. The rates are the differences of two reads with a pause between them.
"""

import json
import sys
import time
from typing import Annotated, Any

import httpx
import typer

from relay.cli.options import DEFAULT_URL, JsonOption, UrlOption
from relay.cli.output import printable
from relay.cli.tables import print_table
from relay.client.responses import check_base_url, read_json, read_problem
from relay.core.errors import ConfigurationError, RelayError
from relay.net.http_client import blocking_client

ANSWER_WITHIN_S = 10.0

Row = dict[str, Any]


def publishers(
    *,
    url: UrlOption = DEFAULT_URL,
    key: Annotated[
        str,
        typer.Option(
            "--key",
            envvar="RELAY_OPERATOR_KEY",
            metavar="NAME.SECRET",
            help="An operator key that may read. The environment variable keeps it out of the process list.",
        ),
    ] = "",
    interval: Annotated[
        float,
        typer.Option(
            "--interval", min=0.1, max=60.0, help="Seconds between the two reads that give the rates."
        ),
    ] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Show who publishes what at which rate, and what was refused or dropped."""
    if not key:
        raise ConfigurationError(
            "An operator key is needed, as --key or in RELAY_OPERATOR_KEY; `relay keys operator NAME` makes one."
        )
    address = check_base_url(url, ("http", "https"))
    headers = {"Authorization": f"Bearer {key}"}
    with blocking_client(address, timeout_s=ANSWER_WITHIN_S, headers=headers) as client:
        before = _read(client, address)
        time.sleep(interval)
        after = _read(client, address)
    rows = _with_rates(before, after)
    if as_json:
        typer.echo(json.dumps({"at": after["at"], "publishers": rows}))
    else:
        _show(rows, now=after["at"])


def _read(client: httpx.Client, address: str) -> dict[str, Any]:
    try:
        response = client.get(f"{address}/v1/publishers")
    except httpx.TransportError as error:
        raise RelayError(
            f"The relay at {address} can't be reached: {error or type(error).__name__}."
        ) from None
    if response.status_code != 200:
        problem = read_problem(response.status_code, response.content, None)
        raise RelayError(
            f"The relay at {address} answers {response.status_code}: {printable(problem.message)}"
        )
    answer = read_json(response.content)
    if answer is None or not isinstance(answer.get("publishers"), list):
        raise RelayError(f"The server at {address} is not the internal listener of a relay.")
    return answer


def _with_rates(before: dict[str, Any], after: dict[str, Any]) -> list[Row]:
    """Return the later rows with `messages_per_s` and `bytes_per_s`."""
    earlier = {row["publisher"]: row for row in before["publishers"]}
    seconds: float = max(1e-3, after["at"] - before["at"])

    def rate(row: Row, name: str) -> float:
        more = float(row[name] - earlier.get(row["publisher"], row)[name])
        return round(
            max(0.0, more) / seconds, 1
        )  # a relay that was restarted between the reads counts from 0

    return [
        row | {"messages_per_s": rate(row, "published"), "bytes_per_s": rate(row, "bytes")}
        for row in after["publishers"]
    ]


_COLUMNS = (
    "publisher",
    "channels",
    *("msg/s", "KB/s", "published", "dropped", "refused", "sockets", "silent"),
    "quota",
)


def _show(rows: list[Row], *, now: float) -> None:
    if not rows:
        sys.stdout.write("The settings name no publishers.\n")
        return
    table = []
    for row in rows:
        channels = ", ".join(row["channels"]) + (" (exclusive)" if row["exclusive"] else "")
        quota = ", ".join(
            text for text in (row["rate"], row["byte_rate"] and f"{row['byte_rate']} bytes") if text
        )
        cells = (
            row["publisher"],
            channels,
            f"{row['messages_per_s']:,.1f}",
            f"{row['bytes_per_s'] / 1000:,.1f}",
            f"{row['published']:,}",
            f"{row['stale'] + row['duplicate']:,}",
            f"{row['refused']:,}",
            str(row["connections"]),
            "always" if row["last_at"] is None else f"{max(0.0, now - row['last_at']):.1f} s",
            quota or "none",
        )
        table.append(cells)
    print_table(_COLUMNS, table, right=_COLUMNS[2:-1])
