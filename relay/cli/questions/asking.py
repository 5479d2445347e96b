"""The questions whose answer is a table."""

import json
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from relay.audit.query import connected, privileges, summaries, timeline
from relay.cli.questions.given import (
    FilesOption,
    JsonOption,
    Log,
    SinceOption,
    UntilOption,
    parse_time,
    show,
)
from relay.cli.serve import ConfigOption
from relay.cli.views import printable
from relay.core.errors import ConfigurationError
from relay.core.patterns import is_pattern


def why(
    about: Annotated[str, typer.Argument(metavar="JTI|CONNECTION|SESSION|USER", help="Whose story.")],
    *,
    file: FilesOption = None,
    config: ConfigOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    as_json: JsonOption = False,
) -> None:
    """Tell the story of a token, a connection, a session or a user, from the request to the close."""
    log = Log(file, config=config, since=since, until=until)
    steps = timeline.why(log.lines, about, reading=log.reading)
    if as_json:
        sys.stdout.write(json.dumps([asdict(step) for step in steps]) + "\n")
    elif not steps:
        Console().print(Text(f"Nothing in the log is about {printable(about)}."))
    for step in () if as_json else steps:
        who = " ".join(text for text in (step.user, step.address and f"from {step.address}") if text)
        marks = f"  [!] {', '.join(step.marks)}" if step.marks else ""
        head = Text(f"{printable(step.at)}  ", style="dim") + Text(printable(step.action), style="bold")
        Console().print(
            head + Text(f"  {printable(who)}", style="dim") + Text(printable(marks), style="bold red")
        )
        Console().print(Text(f"    {printable(step.sentence)}"))
    log.tell_missing()


def who(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its name in the settings.")],
    *,
    at: Annotated[str, typer.Option("--at", help="The moment: 2h for so long ago, or a time.")] = "0s",
    file: FilesOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who was connected to an endpoint at a moment."""
    log = Log(file, config=config)
    moment = parse_time(at, option="--at")
    rows = [asdict(row) for row in connected.who(log.reading.records(log.lines()), endpoint, at=moment)]
    columns = ["user", "address", "since", "until", "channels", "connection", "jti"]
    if not as_json:
        rows = [row | {"until": _until(row)} for row in rows]
    show(
        rows, as_json=as_json, columns=columns, nothing=f"Nobody was connected to {printable(endpoint)} then."
    )
    log.tell_missing()


def _until(row: dict[str, Any]) -> str:
    if row["killed"]:
        return f"its relay died before {row['until']}"
    return row["until"] or "open when the log ends"


def scopes(
    *,
    candidate: Annotated[
        Path | None,
        typer.Option(
            "--candidate",
            metavar="FILE",
            help="A relay.toml with other [grants]: show who would have lost what.",
        ),
    ] = None,
    users: Annotated[bool, typer.Option("--users", help="By user instead of by role.")] = False,
    unused: Annotated[bool, typer.Option("--unused", help="Only what was never used.")] = False,
    file: FilesOption = None,
    config: ConfigOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what was granted and never used; or with other grants, who would have lost what."""
    log = Log(file, config=config, since=since, until=until)
    records = log.reading.records(log.lines())
    if candidate is not None:
        rows = [
            asdict(loss) | {"missed": sorted(loss.missed)}
            for loss in privileges.losses(records, _grants(candidate))
        ]
        columns = ["user", "roles", "endpoint", "scope", "tokens", "connections", "missed"]
        nothing = "Nobody would have lost anything."
    else:
        rows = [
            asdict(grant) | {"users": len(grant.users), "used_by": len(grant.used_by)}
            for grant in privileges.scopes(records, by_user=users)
            if not (unused and grant.connections)
        ]
        columns = ["whose", "endpoint", "scope", "tokens", "users", "connections", "used_by"]
        nothing = "No token was issued."
    right = ("tokens", "users", "connections", "used_by") if candidate is None else ("tokens", "connections")
    show(rows, as_json=as_json, columns=columns, nothing=nothing, right=right)
    log.tell_missing()


def anomalies(
    *,
    file: FilesOption = None,
    config: ConfigOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what looks like theft: replays, tokens at the wrong place or from somewhere else, floods of refusals."""
    log = Log(file, config=config, since=since, until=until)
    rows = [
        {
            "at": record.at,
            "marks": record.relay.anomalies,
            "action": record.event.action,
            "reason": record.event.reason,
            "user": record.user.id,
            "address": record.client.ip,
            "jti": record.relay.token.jti,
        }
        for record in summaries.anomalies(log.reading.records(log.lines()))
    ]
    columns = ["at", "marks", "action", "reason", "user", "address", "jti"]
    show(rows, as_json=as_json, columns=columns, nothing="Nothing is marked.")
    log.tell_missing()


def stats(
    *,
    file: FilesOption = None,
    config: ConfigOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    as_json: JsonOption = False,
) -> None:
    """Count the log: actions, refusals with their reasons, endpoints, who was refused most."""
    log = Log(file, config=config, since=since, until=until)
    found = summaries.stats(log.reading.records(log.lines()))
    refusals = [
        {"action": action, "reason": reason, "count": count}
        for (action, reason), count in found.refusals.most_common()
    ]
    tables: dict[str, list[dict[str, Any]]] = {
        "actions": _counted("action", found.actions.most_common()),
        "refusals": refusals,
        "endpoints": _counted("endpoint", found.endpoints.most_common()),
        "users_refused": _counted("user", found.users.most_common(summaries.TOP)),
        "addresses_refused": _counted("address", found.addresses.most_common(summaries.TOP)),
        "lost": _counted("action", found.lost.most_common()),
    }
    if as_json:
        facts = {"records": found.records, "first": found.first, "last": found.last}
        sys.stdout.write(json.dumps(facts | tables) + "\n")
    else:
        span = f", from {printable(found.first)} to {printable(found.last)}" if found.records else ""
        Console().print(Text(f"{found.records:,} records{span}"))
        for name, rows in tables.items():
            if rows:
                Console().print(Text(f"\n{name.replace('_', ' ')}", style="bold"))
                show(rows, as_json=False, columns=list(rows[0]), nothing="", right=["count"])
    log.tell_missing()


def _counted(name: str, counts: list[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{name: key or "-", "count": count} for key, count in counts if count]


def _grants(path: Path) -> privileges.Grants:
    """Read the [grants] of a settings file, which may have nothing else.

    Raises:
        ConfigurationError: if there are none, or they are not of their form.
    """
    try:
        grants = tomllib.loads(path.read_text("utf-8")).get("grants")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--candidate: {path} can't be read: {error}") from None
    if not isinstance(grants, dict):
        raise ConfigurationError(f"--candidate: {path} has no [grants].")
    for role, by_endpoint in grants.items():
        if not isinstance(by_endpoint, dict):
            raise ConfigurationError(
                f"--candidate: grants.{role} is a table of endpoints and their channels."
            )
    return {
        role: {endpoint: _patterns(role, endpoint, grant) for endpoint, grant in by_endpoint.items()}
        for role, by_endpoint in grants.items()
    }


def _patterns(role: str, endpoint: str, grant: object) -> list[str]:
    if grant is True:  # a service has no channels
        return []
    patterns = grant.get("channels") if isinstance(grant, dict) else grant
    if not isinstance(patterns, list) or not all(
        isinstance(one, str) and is_pattern(one) for one in patterns
    ):
        raise ConfigurationError(f"--candidate: grants.{role}.{endpoint} is a list of channels and patterns.")
    return patterns
