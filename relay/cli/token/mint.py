"""`relay token mint`: makes a scoped token without a session, for tests and support. It needs the private key.

A person who can read the private key can make any token, also without this command. The command adds a record: before
the token is printed, `token.issued`, with the person and the machine, is in an audit log. By default that is the
relay's log. A running relay is the only writer of its log, because two writers would break the chain. Then --audit
names another log, which is chained and can be verified as well.

Requests that the relay would refuse are refused here too. Otherwise a useless token would look like an error of the
relay.
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
            help="A pattern that it grants; repeat it for several. Default: all channels of the endpoint.",
        ),
    ] = None,
    origin: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Browser origin that will connect. Default: none, not a browser.",
        ),
    ] = "",
    audit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Record it in this audit log. Needed while the relay writes its own."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token that is good for one connection within tokens.ttl_s, and record who made it.

    The token is printed on standard output, and its user and endpoint on standard error.

    Exit code 2: no token was made, because the private key, the settings or a file for the record are missing.
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
        raise ConfigurationError(f"There is no token: {error}.") from None
    path = settings.audit.path if audit is None else audit
    _check_log(path)
    with quiet_log():
        # only the relay's own log has checkpoints
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
            "Run this command where the issuer's keys are."
        )
    return key


def _claims(
    settings: Settings, terms: EndpointTerms, *, user: str, channels: list[str], origin: str
) -> tokens.Claims:
    patterns = tuple(check_pattern(channel) for channel in channels)
    if patterns and not terms.has_channels:
        raise ConfigurationError("Leave out --channels: a token for another service has no channels.")
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
        # without a session, a revocation of the user also revokes this token
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
    """Return the user who runs the command, also under `sudo`. Variables can be faked; the uid in the record can't."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in containers
        return ""


def _check_log(path: Path) -> None:
    """Check that `path` is no device, because a device does not keep a record.

    Raises:
        ConfigurationError: if `path` exists and is no regular file.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # missing or unreadable: opening it reports that
        return
    if not stat.S_ISREG(mode):
        raise ConfigurationError(
            f"{path} is no regular file, so it keeps no record, and a token needs a record; "
            "name a file with --audit FILE."
        )


async def _record(path: Path, event: Event, kept: LogOptions | None) -> None:
    try:
        auditor = JsonlAuditor.open(path, node=socket.gethostname(), options=kept)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}\nA token needs a record. A running relay is the only writer of its log: name another log "
            "for tokens that are made by hand, with --audit FILE."
        ) from None
    try:
        await auditor.record(event)
    finally:
        await auditor.aclose()
