"""`relay audit scopes`: which grants were never used, and what other grants would have taken away."""

import tomllib
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.audit.input import Log, query
from relay.cli.audit.output import fields_of, print_rows
from relay.cli.options import JsonOption
from relay.cli.output import printable
from relay.core.errors import ConfigurationError
from relay.core.patterns import is_pattern

_GRANT_COLUMNS = ("whose", "endpoint", "scope", "tokens", "users", "connections", "used_by")
_LOSS_COLUMNS = ("user", "roles", "endpoint", "scope", "tokens", "connections", "missed")


@query
def scopes(
    log: Log,
    *,
    candidate: Annotated[
        Path | None,
        typer.Option(
            "--candidate",
            metavar="FILE",
            # escaped: Typer reads help as Rich's markup
            help="A relay.toml with other \\[grants]: show who would have lost what.",
        ),
    ] = None,
    users: Annotated[bool, typer.Option("--users", help="Group by user instead of by role.")] = False,
    unused: Annotated[bool, typer.Option("--unused", help="Only grants that were never used.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what was granted and never used; or with other grants, who would have lost what."""
    index = log.index
    from relay.audit.index import privileges

    if candidate is not None:
        rows = [fields_of(loss) for loss in privileges.lost_grants(index, _grants(candidate))]
        print_rows(
            rows,
            as_json=as_json,
            columns=_LOSS_COLUMNS,
            nothing=log.nothing("Nobody would have lost anything."),
            right=("tokens", "connections"),
        )
        return
    grants = privileges.grant_uses(index, by_user=users)
    rows = [fields_of(grant) for grant in grants if not (unused and grant.connections)]
    nothing = "No token was issued in this time."
    if grants:
        nothing = "Each scope that tokens gave a user was used by that user."
        if not users:
            nothing = "Each scope that tokens gave a role was used by somebody. --users tells who did not."
    print_rows(
        rows,
        as_json=as_json,
        columns=_GRANT_COLUMNS,
        nothing=log.nothing(nothing),
        right=("tokens", "users", "connections", "used_by"),
    )


def _grants(path: Path) -> dict[str, dict[str, list[str]]]:
    """Read the [grants] of a settings file, which need not have anything else.

    Raises:
        ConfigurationError: if it has none, or they do not have the form of grants.
    """
    try:
        grants = tomllib.loads(path.read_text("utf-8")).get("grants")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"--candidate: {printable(str(path))} can't be read: {why}.") from None
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
