"""`relay token inspect`: a scoped token explained to a person, with every reason against it that it shows by itself.

It asks for nothing but the token, so that it can be used anywhere at once. What needs a key, or somebody's word on
what the token should be for, is `relay token verify`'s.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import typer

from relay.cli.options import JsonOption
from relay.cli.token.output import (
    TokenArgument,
    print_verdict,
    read_token,
    refusals_as_json,
    shown,
)
from relay.core.errors import Reason, Refusal
from relay.core.grants import OPTION_CLAIMS
from relay.core.tokens import ALGORITHM, SCOPE, SERVICE_SCOPE, TYPE, VERSION, Examination, examine

_HEADER_WORDS = {
    "typ": f"what kind of token it is; {TYPE} for a scoped token",
    "alg": f"the signature's algorithm; {ALGORITHM} and no other",
    "kid": "which key signed it",
}
_CLAIM_WORDS = {
    "iss": "who issued it",
    "aud": "the one endpoint that it is for",
    "sub": "the user",
    "iat": "issued",
    "nbf": "valid from",
    "exp": "expires",
    "jti": "its own id, under which it is used up",
    "scope": f"what it allows; {SCOPE} on a socket, {SERVICE_SCOPE} on another service",
    "channels": "the channels and patterns that it grants",
    "sid": "reference of the log-in session, not its id",
    "session_exp": "end of the log-in session",
    "session_iat": "beginning of the log-in session",
    "origin": 'the browser origin that asked; "" for a server-side caller',
    "asker": "keyed hash of who asked for it, to tell whether another one uses it",
    **OPTION_CLAIMS,
    "ver": f"version of this format; {VERSION}",
}
_TIMES = frozenset({"iat", "nbf", "exp", "session_exp", "session_iat"})
_UNCHECKED: Final = (
    "The signature, and whether it is for the right endpoint, issuer and origin: `relay token verify` does.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    """What a token says, in rows of member, value and meaning, and what is wrong with it by itself."""

    header: Mapping[str, Any]
    payload: Mapping[str, Any]
    refusals: tuple[Refusal, ...]
    unchecked: tuple[str, ...]
    now: float
    rows: tuple[tuple[str, str, str], ...]


def inspect(token: TokenArgument, as_json: JsonOption = False) -> None:
    """Explain a token, and name every reason why any relay would refuse it now.

    Exit code 0: none that shows without its key; 1: refused; 2: the command itself was wrong.
    An argument shows in the shell's history and the process list: pass a live token on standard input.
    """
    findings = _find(read_token(token), now=time.time())
    if as_json:
        typer.echo(_to_json(findings))
    else:
        _print_rows(findings)
        verdict = (
            "It would be refused:" if findings.refusals else "Nothing in it is a reason to refuse it now."
        )
        print_verdict(verdict, findings.refusals, findings.unchecked)
    raise typer.Exit(1 if findings.refusals else 0)


def _find(text: str, *, now: float) -> _Findings:
    found = examine(text, {}, now=now, expected=None)
    refusals = found.refusals
    if isinstance(found.header.get("kid"), str):  # no key is known here; without a name none could be
        refusals = tuple(refusal for refusal in refusals if refusal.reason is not Reason.TOKEN_KEY_UNKNOWN)
    return _Findings(
        header=found.header,
        payload=found.payload,
        refusals=refusals,
        unchecked=_UNCHECKED if found.header else (),
        now=now,
        rows=tuple(_rows(found, now)),
    )


def _rows(found: Examination, now: float) -> list[tuple[str, str, str]]:
    rows = []
    for name, value in found.header.items():
        words = _HEADER_WORDS.get(name, "not allowed in a scoped token's header")
        rows.append((shown(name, quoted=False), shown(value), words))
    for name, value in found.payload.items():
        words = _CLAIM_WORDS.get(name, "not a claim of scoped tokens")
        if name in _TIMES and type(value) is int:
            words = _time_in_words(name, value, now)
        rows.append((shown(name, quoted=False), shown(value), words))
    return rows


def _time_in_words(name: str, at: int, now: float) -> str:
    try:
        local = datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    except (OverflowError, ValueError, OSError):
        return "a time beyond the calendar"
    distance = at - now
    span = _span(abs(distance))
    if name in ("exp", "session_exp"):
        verb = "expires" if name == "exp" else "the log-in session ends"
        past = "expired" if name == "exp" else "the log-in session ended"
        return f"{local}: {past} {span} ago" if distance <= 0 else f"{local}: {verb} in {span}"
    return f"{local}: {_CLAIM_WORDS[name]} " + (f"{span} ago" if distance <= 0 else f"only in {span}")


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _to_json(findings: _Findings) -> str:
    answer = {
        "acceptable": not findings.refusals,
        "refusals": refusals_as_json(findings.refusals),
        "unchecked": findings.unchecked,
        "now": int(findings.now),
    }
    try:
        return json.dumps(answer | {"header": findings.header, "claims": findings.payload}, indent=2)
    except RecursionError:  # parsing goes deeper than indenting
        return json.dumps(answer | {"header": None, "claims": None}, indent=2)


def _print_rows(findings: _Findings) -> None:
    if not findings.rows:
        return
    if not sys.stdout.isatty():
        for name, value, words in findings.rows:
            typer.echo(f"{name}: {value}  ({words})")
        typer.echo("")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("member", "value", "meaning"):
        table.add_column(heading, overflow="fold")
    for row in findings.rows:
        table.add_row(*map(Text, row))  # Text, so that no claim is read as rich's markup
    console = Console()
    console.print(table)
    console.print()
