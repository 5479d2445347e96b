"""`relay token inspect`: explains a scoped token, with every reason to refuse it that the token itself shows.

It needs nothing but the token, so that it works anywhere. `relay token verify` makes the checks that need a key or an
expected endpoint.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import typer

from relay.cli.options import JsonOption
from relay.cli.tables import print_table
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

_HEADER_MEANINGS = {
    "typ": f"type of the token; {TYPE} for a scoped token",
    "alg": f"algorithm of the signature; always {ALGORITHM}",
    "kid": "name of the key that signed it",
}
_CLAIM_MEANINGS = {
    "iss": "the issuer",
    "aud": "the one endpoint that it is for",
    "sub": "the user",
    "iat": "issued",
    "nbf": "valid from",
    "exp": "expires",
    "jti": "its id; a relay accepts a token with this id once",
    "scope": f"what it allows: {SCOPE} on a socket, {SERVICE_SCOPE} on another service",
    "channels": "the channels and patterns that it grants",
    "sid": "reference of the log-in session, not its id",
    "session_exp": "end of the log-in session",
    "session_iat": "start of the log-in session",
    "origin": 'the browser origin that requested it; "" for a server-side caller',
    "asker": "keyed hash of the client that requested it, to notice another client",
    **OPTION_CLAIMS,
    "ver": f"version of this format; {VERSION}",
}
_TIMES = frozenset({"iat", "nbf", "exp", "session_exp", "session_iat"})
_UNCHECKED: Final = (
    "The signature, the endpoint, the issuer and the origin: `relay token verify` checks them.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    """The members of a token, in rows of member, value and meaning, and the reasons to refuse it."""

    header: Mapping[str, Any]
    payload: Mapping[str, Any]
    refusals: tuple[Refusal, ...]
    unchecked: tuple[str, ...]
    now: float
    rows: tuple[tuple[str, str, str], ...]


def inspect(token: TokenArgument, as_json: JsonOption = False) -> None:
    """Explain a token, and name every reason why any relay would refuse it now.

    Exit code 0: the token shows no reason by itself; 1: refused; 2: the command itself was wrong.

    An argument shows in the shell's history and in the process list: pass a live token on standard input.
    """
    findings = _find(read_token(token), now=time.time())
    if as_json:
        typer.echo(_to_json(findings))
    else:
        if findings.rows:
            print_table(("member", "value", "meaning"), findings.rows, prose="meaning")
            typer.echo("")
        verdict = (
            "It would be refused:" if findings.refusals else "Nothing in it is a reason to refuse it now."
        )
        print_verdict(verdict, findings.refusals, findings.unchecked)
    raise typer.Exit(1 if findings.refusals else 0)


def _find(text: str, *, now: float) -> _Findings:
    found = examine(text, {}, now=now, expected=None)
    refusals = found.refusals
    if isinstance(
        found.header.get("kid"), str
    ):  # keys are not checked here, but a token without a key's name is wrong
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
        meaning = _HEADER_MEANINGS.get(name, "not allowed in a scoped token's header")
        rows.append((shown(name, quoted=False), shown(value), meaning))
    for name, value in found.payload.items():
        meaning = _CLAIM_MEANINGS.get(name, "not a claim of scoped tokens")
        if name in _TIMES and type(value) is int:
            meaning = _time_meaning(name, value, now)
        rows.append((shown(name, quoted=False), shown(value), meaning))
    return rows


def _time_meaning(name: str, at: int, now: float) -> str:
    try:
        local = datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    except (OverflowError, ValueError, OSError):
        return "a time after the last one of the calendar"
    distance = at - now
    span = _span(abs(distance))
    if name in ("exp", "session_exp"):
        verb = "expires" if name == "exp" else "the log-in session ends"
        past = "expired" if name == "exp" else "the log-in session ended"
        return f"{local}: {past} {span} ago" if distance <= 0 else f"{local}: {verb} in {span}"
    return f"{local}: {_CLAIM_MEANINGS[name]} " + (f"{span} ago" if distance <= 0 else f"only in {span}")


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
    except RecursionError:  # JSON can be parsed deeper than it can be written
        return json.dumps(answer | {"header": None, "claims": None}, indent=2)
