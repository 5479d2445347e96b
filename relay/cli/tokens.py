"""`relay token`: explain a scoped token to a person, with every reason why it would be refused.

What the token says comes from whoever made it, so nothing of it reaches the terminal raw: every text is shown
as JSON, with all that can't be printed escaped (an ANSI sequence in `sub` could rewrite the verdict). The
checks are those of the gate, from `relay.core.tokens`; what could not be checked here is named.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.core.errors import ConfigurationError, MalformedError, Reason, Refusal
from relay.core.jws import VerifyKey, parse_json_object
from relay.core.tokens import (
    ALGORITHM,
    MAX_TOKEN_BYTES,
    SCOPE,
    TYPE,
    VERSION,
    Examination,
    Expected,
    examine,
)
from relay.keys.files import load_keys
from relay.keys.jwks import from_jwks

_MAX_JWKS_BYTES = 65_536
_MAX_SHOWN_CHARS = 400
"""Characters of a value that are shown; a channel list of 32 may have more, and its start is enough."""

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
    "scope": f"what it allows; {SCOPE} and nothing else",
    "channels": "the channels and patterns that it grants",
    "sid": "reference of the log-in session, not its id",
    "session_exp": "end of the log-in session",
    "origin": 'the browser origin that asked; "" for a server-side caller',
    "ver": f"version of this format; {VERSION}",
}
_TIMES = frozenset({"iat", "nbf", "exp", "session_exp"})

app = typer.Typer(no_args_is_help=True, help="Explain scoped tokens.")


@app.callback()
def _group() -> None:
    """Explain scoped tokens."""  # a Typer app with one command would otherwise be that command


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What the caller asked to be compared. None: not compared."""

    audience: str | None
    issuer: str | None
    origin: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    """What is known of a token: its parts, why it would be refused, and what could not be checked."""

    header: Mapping[str, Any]
    payload: Mapping[str, Any]
    refusals: tuple[Refusal, ...]
    unchecked: tuple[str, ...]
    now: float
    rows: tuple[tuple[str, str, str], ...]

    @property
    def acceptable(self) -> bool:
        return not self.refusals


@app.command()
def inspect(
    token: Annotated[str, typer.Argument(help="The token, or - to read it from standard input.")],
    keys_dir: Annotated[
        Path | None, typer.Option("--keys-dir", metavar="FOLDER", help="Check the signature with these keys.")
    ] = None,
    jwks: Annotated[
        Path | None, typer.Option("--jwks", metavar="FILE", help="Check the signature with this JWK Set.")
    ] = None,
    audience: Annotated[
        str | None, typer.Option(metavar="URL", help="Endpoint that it must be for, exactly.")
    ] = None,
    issuer: Annotated[str | None, typer.Option(metavar="URL", help="Issuer that it must be from.")] = None,
    origin: Annotated[
        str | None, typer.Option(help='Browser origin that it must be for; "" for one without.')
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Explain a token, and say whether it would be accepted now or every reason why not.

    Exit code 0: acceptable as far as it was checked; 1: refused; 2: the command itself was wrong.
    An argument shows in the shell's history and the process list: pass a live token on standard input.
    """
    keys = _load_verify_keys(keys_dir, jwks)
    text = _read_standard_input() if token == "-" else token  # noqa: S105  # no password, but standard input
    wanted = _Wanted(audience=audience, issuer=issuer, origin=origin)
    findings = _find(text, keys, wanted, now=time.time())
    if as_json:
        typer.echo(_to_json(findings))
    elif sys.stdout.isatty():
        _print_table(findings, Console())
    else:
        _print_plain(findings)
    raise typer.Exit(0 if findings.acceptable else 1)


def _read_standard_input() -> str:
    if sys.stdin is None:
        raise ConfigurationError("Standard input is closed: pipe the token into the command.")
    # enough to know a token that is too long, with its line end, from one that is not
    data = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 3)
    return data.decode("utf-8", "replace").rstrip("\r\n")


def _load_verify_keys(keys_dir: Path | None, jwks: Path | None) -> Mapping[str, VerifyKey] | None:
    if keys_dir is not None and jwks is not None:
        raise ConfigurationError("Give --keys-dir or --jwks, not both.")
    if keys_dir is not None:
        return load_keys(keys_dir).verify
    if jwks is None:
        return None
    try:
        with jwks.open("rb") as file:
            data = file.read(_MAX_JWKS_BYTES + 1)
        if len(data) > _MAX_JWKS_BYTES:
            raise ValueError(f"it has more than {_MAX_JWKS_BYTES} bytes")
        return from_jwks(parse_json_object(data))
    except OSError as error:
        raise ConfigurationError(
            f"{jwks} can't be read ({(error.strerror or str(error)).lower()})."
        ) from None
    except ValueError as error:
        raise ConfigurationError(f"{jwks} is not a JWK Set: {error}.") from None
    except MalformedError as error:
        raise ConfigurationError(f"{jwks}: {error.detail}") from None


def _find(text: str, keys: Mapping[str, VerifyKey] | None, wanted: _Wanted, *, now: float) -> _Findings:
    found = examine(text, keys or {}, now=now, expected=None)
    if _is_whole(found.payload):
        # what the caller did not name is compared with the token's own word, and so with nothing
        expected = Expected(
            issuer=found.payload["iss"] if wanted.issuer is None else wanted.issuer,
            audience=found.payload["aud"] if wanted.audience is None else wanted.audience,
            origin=wanted.origin,
        )
        found = examine(text, keys or {}, now=now, expected=expected)
    refusals = found.refusals
    if keys is None and isinstance(found.header.get("kid"), str):
        refusals = tuple(refusal for refusal in refusals if refusal.reason is not Reason.TOKEN_KEY_UNKNOWN)
    return _Findings(
        header=found.header,
        payload=found.payload,
        refusals=refusals,
        unchecked=tuple(_unchecked(keys, wanted)) if found.header else (),
        now=now,
        rows=tuple(_rows(found, now)),
    )


def _is_whole(payload: Mapping[str, Any]) -> bool:
    return all(isinstance(payload.get(name), str) for name in ("iss", "aud", "scope", "origin"))


def _unchecked(keys: Mapping[str, VerifyKey] | None, wanted: _Wanted) -> list[str]:
    missing = []
    if keys is None:
        missing.append("The signature is unproven: name the keys with --keys-dir or --jwks.")
    for name, value in (("audience", wanted.audience), ("issuer", wanted.issuer), ("origin", wanted.origin)):
        if value is None:
            missing.append(f"The {name} was not compared: name the right one with --{name}.")
    missing.append(
        "Only the relay's state store knows whether it was used before or its session was revoked."
    )
    return missing


def _rows(found: Examination, now: float) -> list[tuple[str, str, str]]:
    rows = []
    for name, value in found.header.items():
        words = _HEADER_WORDS.get(name, "not allowed in a scoped token's header")
        rows.append((_shown(name, quoted=False), _shown(value), words))
    for name, value in found.payload.items():
        words = _CLAIM_WORDS.get(name, "not a claim of scoped tokens")
        if name in _TIMES and type(value) is int:
            words = _time_in_words(name, value, now)
        rows.append((_shown(name, quoted=False), _shown(value), words))
    return rows


def _shown(value: object, *, quoted: bool = True) -> str:
    """Return a value from a token as text that a terminal shows and never obeys."""
    try:
        text = value if isinstance(value, str) and not quoted else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply to show)"
    if len(text) > _MAX_SHOWN_CHARS:
        text = text[: _MAX_SHOWN_CHARS - 1] + "…"
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


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


def _verdict(findings: _Findings) -> str:
    if findings.acceptable:
        return "It would be accepted now, as far as it was checked."
    return "It would be refused:"


def _to_json(findings: _Findings) -> str:
    answer = {
        "acceptable": findings.acceptable,
        "refusals": [{"reason": r.reason.value, "detail": str(r)} for r in findings.refusals],
        "unchecked": findings.unchecked,
        "now": int(findings.now),
    }
    try:
        return json.dumps(answer | {"header": findings.header, "claims": findings.payload}, indent=2)
    except RecursionError:  # parsing goes deeper than indenting
        return json.dumps(answer | {"header": None, "claims": None}, indent=2)


def _print_plain(findings: _Findings) -> None:
    for name, value, words in findings.rows:
        typer.echo(f"{name}: {value}  ({words})")
    if findings.rows:
        typer.echo("")
    typer.echo(_verdict(findings))
    for refusal in findings.refusals:
        typer.echo(f"- {refusal.reason.value}: {_shown(str(refusal), quoted=False)}")
    for sentence in findings.unchecked:
        typer.echo(f"Not checked: {sentence}")


def _print_table(findings: _Findings, console: Console) -> None:
    if findings.rows:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("member", "value", "meaning"):
            table.add_column(heading, overflow="fold")
        for row in findings.rows:
            table.add_row(*map(Text, row))  # Text, so that no claim is read as rich's markup
        console.print(table)
        console.print()
    console.print(Text(_verdict(findings), style="bold green" if findings.acceptable else "bold red"))
    for refusal in findings.refusals:
        console.print(Text(f"  {refusal.reason.value}: {_shown(str(refusal), quoted=False)}", style="red"))
    for sentence in findings.unchecked:
        console.print(Text(f"  Not checked: {sentence}", style="yellow"))
