"""`relay token verify`: says whether a token would be accepted now, or every reason why not.

The checks are those of the gate, from `relay.core.tokens`. With settings, the keys, the issuer and the endpoints are
the gate's as well. On other machines, a folder of public keys or the issuer's JWKS address is enough; values that
were not named are then not compared, and the answer says so. Only the running relay knows whether a token was used or
its session was ended; the answer names this as not checked.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import typer

from relay.cli.options import ConfigOption, JsonOption, load_settings
from relay.cli.token.output import (
    TokenArgument,
    print_verdict,
    quiet_log,
    read_token,
    refusals_as_json,
    shown,
)
from relay.core import strict_json
from relay.core.errors import ConfigurationError, MalformedError, Reason, Refusal, UnavailableError
from relay.core.jws import VerifyKey
from relay.core.tokens import SCOPE, SERVICE_SCOPE, Expected, examine
from relay.keys.files import load_keys
from relay.keys.jwks import from_jwks
from relay.keys.jwks_url import check_jwks_url
from relay.keys.sources import FetchedKeys

_MAX_JWKS_BYTES = 65_536
_STATE_UNCHECKED: Final = "Only the running relay knows whether it was used before or its session was ended."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Requirements:
    """The required values; None: not compared. `audiences`: audience -> scope. `origins`: those that may connect."""

    keys: Mapping[str, VerifyKey]
    issuer: str | None = None
    audiences: Mapping[str, str] | None = None
    origins: frozenset[str] | None = None


def verify(
    context: typer.Context,
    token: TokenArgument,
    config: ConfigOption = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The token's endpoint. Default: any endpoint of the settings."),
    ] = None,
    keys_dir: Annotated[
        Path | None,
        typer.Option(
            "--keys-dir", metavar="FOLDER", help="Check with the keys of this folder, without settings."
        ),
    ] = None,
    jwks: Annotated[
        str | None,
        typer.Option("--jwks", metavar="URL|FILE", help="Check with this JWK Set, without settings."),
    ] = None,
    audience: Annotated[
        str | None, typer.Option(metavar="URL", help="Without settings: the endpoint's exact URL.")
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(metavar="URL", help="Without settings: the issuer's URL.")
    ] = None,
    origin: Annotated[
        str | None, typer.Option(help='The browser origin that would connect; "" for a client without one.')
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a token would be accepted now, or every reason why not.

    Exit code 0: accepted; 1: refused; 2: the command itself was wrong, or the keys can't be read.

    An argument shows in the shell's history and in the process list: pass a live token on standard input.
    """
    text = read_token(token)
    if keys_dir is None and jwks is None:
        required = _of_settings(config, endpoint, text, named=(audience, issuer))
    else:
        # RELAY_CONFIG is ignored here, but with --config there would be two sources of keys
        if getattr(context.get_parameter_source("config"), "name", "") == "COMMANDLINE":
            _refuse_two_sources()
        required = _of_options(keys_dir, jwks, text, endpoint=endpoint, audience=audience, issuer=issuer)
    now = time.time()
    refusals, subject = _judge(text, required, origin, now=now)
    unchecked = [*_unchecked(required, origin), _STATE_UNCHECKED]
    if as_json:
        answer = {"accepted": not refusals, "refusals": refusals_as_json(refusals), "unchecked": unchecked}
        typer.echo(json.dumps(answer | {"now": int(now)}, indent=2))
    else:
        verdict = f"It would be accepted now, {subject}." if not refusals else "It would be refused:"
        print_verdict(verdict, refusals, unchecked)
    raise typer.Exit(1 if refusals else 0)


def _refuse_two_sources() -> None:
    raise ConfigurationError("Give one of --config, --keys-dir and --jwks.")


def _of_settings(
    config: Path | None, endpoint: str | None, text: str, *, named: tuple[str | None, str | None]
) -> _Requirements:
    from relay.server.options import issuer_options

    if any(name is not None for name in named):
        raise ConfigurationError(
            "--audience and --issuer go with --keys-dir or --jwks; with settings name the --endpoint."
        )
    settings = load_settings(config, otherwise="To check without settings, give --keys-dir or --jwks.")
    terms = issuer_options(settings).endpoints
    if endpoint is not None and endpoint not in terms:
        raise ConfigurationError(
            f"There is no [endpoints.{shown(endpoint, quoted=False)}]; the settings have {', '.join(terms)}."
        )
    url = settings.tokens.jwks_url
    return _Requirements(
        keys=load_keys(settings.tokens.keys_dir).verify
        if url is None
        else _fetched(url, text, private_http=settings.tokens.jwks_private_http),
        issuer=settings.public.url,
        audiences={
            one.audience: one.scope for name, one in terms.items() if endpoint is None or name == endpoint
        },
        origins=settings.allowed_origins,
    )


def _of_options(
    keys_dir: Path | None,
    jwks: str | None,
    text: str,
    *,
    endpoint: str | None,
    audience: str | None,
    issuer: str | None,
) -> _Requirements:
    if keys_dir is not None and jwks is not None:
        _refuse_two_sources()
    if endpoint is not None:
        raise ConfigurationError("--endpoint is a name from the settings; without them give --audience URL.")
    if keys_dir is not None:
        keys = load_keys(keys_dir).verify
    else:
        assert jwks is not None  # the caller's own check
        keys = _fetched(jwks, text) if "://" in jwks else _read_jwks(Path(jwks))
    return _Requirements(keys=keys, issuer=issuer, audiences=None if audience is None else {audience: ""})


def _fetched(url: str, text: str, *, private_http: bool = False) -> Mapping[str, VerifyKey]:
    """Return the keys for this token from the JWKS address, fetched as a separate stream does."""
    check_jwks_url(url, private_http=private_http)

    async def fetch() -> Mapping[str, VerifyKey]:
        source = FetchedKeys(url, private_http=private_http)
        try:
            return await source.keys_for(text)
        finally:
            await source.aclose()

    try:
        with quiet_log():
            return anyio.run(fetch)
    except UnavailableError as error:
        raise ConfigurationError(f"The keys can't be fetched: {error}") from None


def _read_jwks(path: Path) -> Mapping[str, VerifyKey]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_JWKS_BYTES + 1)
        if len(data) > _MAX_JWKS_BYTES:
            raise ValueError(f"it has more than {_MAX_JWKS_BYTES} bytes")
        return from_jwks(strict_json.parse_object(data))
    except OSError as error:
        raise ConfigurationError(
            f"{path} can't be read ({(error.strerror or str(error)).lower()})."
        ) from None
    except ValueError as error:
        raise ConfigurationError(f"{path} is not a JWK Set: {error}.") from None
    except MalformedError as error:
        raise ConfigurationError(f"{path}: {error.detail}") from None


def _judge(
    text: str, required: _Requirements, origin: str | None, *, now: float
) -> tuple[tuple[Refusal, ...], str]:
    """Return every reason to refuse the token, and a phrase with its user and endpoint."""
    found = examine(text, required.keys, now=now, expected=None)
    payload = found.payload
    if not all(isinstance(payload.get(name), str) for name in ("iss", "aud", "scope", "origin")):
        return found.refusals, ""  # nothing to compare
    audience, scope = _right_audience(payload, required)
    expected = Expected(
        # a value that was not named is compared with the token's own, which always fits
        issuer=payload["iss"] if required.issuer is None else required.issuer,
        audience=audience,
        origin=origin,
        scope=scope,
    )
    refusals = examine(text, required.keys, now=now, expected=expected).refusals
    if origin is None and required.origins is not None and payload["origin"] not in {"", *required.origins}:
        refusals += (
            Refusal(
                reason=Reason.ORIGIN_REFUSED,
                detail=f"It was requested from {payload['origin'][:120]!r}, which is not an allowed origin.",
            ),
        )
    return refusals, f"for {shown(payload.get('sub'))} at {shown(payload['aud'])}"


def _right_audience(payload: Mapping[str, Any], required: _Requirements) -> tuple[str, str]:
    """Return the required audience and its scope."""
    own_scope = payload["scope"] if payload["scope"] in (SCOPE, SERVICE_SCOPE) else SCOPE
    if required.audiences is None:
        return payload["aud"], own_scope
    audience = payload["aud"] if payload["aud"] in required.audiences else next(iter(required.audiences))
    return audience, required.audiences[audience] or own_scope


def _unchecked(required: _Requirements, origin: str | None) -> list[str]:
    compared = {
        "audience": required.audiences,
        "issuer": required.issuer,
        "origin": required.origins or origin,
    }
    return [
        f"The {name} was not compared: name the expected one with --{name}."
        for name, value in compared.items()
        if value is None
    ]
