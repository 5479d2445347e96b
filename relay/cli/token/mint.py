"""`relay token mint`: a scoped token without a session, for tests and support, made by who holds the private key.

Whoever can read the private key can make any token, with or without this command; what it adds is the record. There
is no token without one: `token.issued`, marked with who asked on which machine, is in an audit log before the token
is printed. The log is the relay's own. While the relay runs it alone may write there, because two writers would
break the chain; then the caller names a log for this purpose with --audit, which is chained and checked like any.

What the relay would refuse is refused here, because a token that is of no use would look like a fault of the relay.
"""

import getpass
import json
import os
import secrets
import socket
import stat
import time
from pathlib import Path
from typing import Annotated

import anyio
import typer

from relay.audit.jsonl import JsonlAuditor
from relay.audit.writer import LogOptions
from relay.cli.options import ConfigOption, JsonOption, config_path
from relay.cli.token.output import quiet_log, shown
from relay.core import tokens
from relay.core.errors import ConfigurationError
from relay.core.events import Action, Event
from relay.core.patterns import check_pattern
from relay.core.scope import Scope
from relay.issuer.policy import EndpointTerms
from relay.keys.files import load_keys
from relay.server.options import audit_log_options, issuer_options, ref_key
from relay.sessions.session_ref import session_ref
from relay.settings.load import Settings, load


def mint(
    user: Annotated[str, typer.Option(metavar="NAME", help="The user that the token is for.")],
    config: ConfigOption = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="Endpoint. Default: tokens.default_endpoint.")
    ] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option(
            "--channels",
            metavar="PATTERN",
            help="What it grants; give it once for each pattern. Default: all of the endpoint's.",
        ),
    ] = None,
    origin: Annotated[
        str, typer.Option(metavar="URL", help="Browser origin that will connect. Default: none, no browser.")
    ] = "",
    audit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Record it in this audit log, while the relay writes its own."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token that is good for one connection within tokens.ttl_s, and record who made it.

    Prints the token on standard output, and what it is for on standard error. Exit code 2 where nothing was made:
    the private key, the settings or a place for the record are missing.
    """
    settings = load(config_path(config))
    terms = issuer_options(settings).endpoints
    name = endpoint or settings.tokens.default_endpoint
    if name not in terms:
        raise ConfigurationError(
            f"There is no [endpoints.{shown(name, quoted=False)}]; the settings have {', '.join(terms)}."
        )
    key = _signing_key(settings)
    claims = _claims(settings, terms[name], user=user, channels=channels or [], origin=origin)
    try:
        text = tokens.mint(claims, key)
    except ValueError as error:
        raise ConfigurationError(f"There is no such token: {error}.") from None
    path = settings.audit.path if audit is None else audit
    _check_log(path)
    with quiet_log():
        # the relay's own log is signed throughout; one for this purpose alone is chained only
        kept = audit_log_options(settings) if path == settings.audit.path else None
        anyio.run(_record, path, _issued(claims, key.kid, name), kept)
    if as_json:
        answer = {
            "token": text,
            "endpoint": claims.audience,
            "expires_at": claims.expires_at,
            "jti": claims.jti,
        }
        typer.echo(json.dumps(answer | {"audit": str(path)}, indent=2))
        return
    typer.echo(f"for       {shown(user)} at {claims.audience}", err=True)
    typer.echo(f"good for  one connection within {settings.tokens.ttl_s} s", err=True)
    typer.echo(f"recorded  {path}", err=True)
    typer.echo(text)


def _signing_key(settings: Settings) -> tokens.SigningKey:
    key = load_keys(settings.tokens.keys_dir).signing
    if key is None:
        raise ConfigurationError(
            f"tokens.keys_dir: {settings.tokens.keys_dir} has no private key, so no token can be made here. "
            "Run this where the issuer's keys are."
        )
    return key


def _claims(
    settings: Settings, terms: EndpointTerms, *, user: str, channels: list[str], origin: str
) -> tokens.Claims:
    patterns = tuple(check_pattern(channel) for channel in channels)
    if patterns and not terms.has_channels:
        raise ConfigurationError("Leave out --channels: a token for another service names none.")
    _, outside = Scope(terms.channels).split(patterns)
    if outside:
        raise ConfigurationError(
            f"{outside[0]} lies outside the endpoint's channels: {', '.join(terms.channels)}."
        )
    if origin and origin not in settings.allowed_origins:
        raise ConfigurationError(
            f"--origin: {shown(origin, quoted=False)} may not open sockets; public.allowed_origins has "
            f"{', '.join(sorted(settings.allowed_origins))}."
        )
    now = int(time.time())
    return tokens.Claims(
        issuer=settings.public.url,
        audience=terms.audience,
        subject=user,
        # there is no session: what cuts off all of this user's cuts off this one too
        session_ref=session_ref(ref_key(settings), session_id=None, subject=user),
        channels=patterns or terms.channels,
        origin=origin,
        jti=secrets.token_urlsafe(16),
        issued_at=now,
        expires_at=now + settings.tokens.ttl_s,
        scope=terms.scope,
    )


def _issued(claims: tokens.Claims, kid: str, endpoint: str) -> Event:
    return Event(
        action=Action.TOKEN_ISSUED,
        user=claims.subject,
        endpoint=endpoint,
        relay={
            "minted_by": {"login": _login(), "uid": os.getuid(), "host": socket.gethostname()},
            "session": {"ref": claims.session_ref},
            "origin": claims.origin,
            "asked": {"endpoint": endpoint, "channels": list(claims.channels)},
            "token": claims.record(kid=kid),
        },
    )


def _login() -> str:
    """Return who sits there, also behind `sudo`. Anybody can set these variables, but not the uid in the record."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in containers
        return ""


def _check_log(path: Path) -> None:
    """Refuse what keeps nothing: a device takes every record and forgets it.

    Raises:
        ConfigurationError: if there is something at `path` that is no regular file.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # not there yet, or not to be read: whoever opens it says so
        return
    if not stat.S_ISREG(mode):
        raise ConfigurationError(
            f"{path} is no file, so it would keep no record, and there is no token without one; "
            "name a file with --audit FILE."
        )


async def _record(path: Path, event: Event, kept: LogOptions | None) -> None:
    try:
        auditor = JsonlAuditor.open(path, node=socket.gethostname(), options=kept)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}\nThere is no token without a record. The log is the relay's alone while it runs: name another "
            "one, for tokens that are made by hand, with --audit FILE."
        ) from None
    try:
        await auditor.record(event)
    finally:
        await auditor.aclose()
