"""`relay token verify`: would this token be accepted now? Every reason why not, in plain words.

The checks are the gate's own, from `relay.core.tokens`, and so are the keys, the issuer and the endpoints, when the
settings are at hand. Elsewhere (a backend's machine, a support desk) a folder of public keys or the issuer's JWKS
address will do; what was not named then is not compared, and said so.

What only the running relay knows is named as not checked: whether the token was used, whether its session was ended.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import typer

from relay.cli.options import ConfigOption, JsonOption, config_path
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
from relay.keys.jwks_client import check_jwks_url
from relay.keys.sources import FetchedKeys

_MAX_JWKS_BYTES = 65_536
_STATE_UNCHECKED: Final = "Only the running relay knows whether it was used before or its session was ended."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What a token must be; None: not compared. `audiences` has each one's scope, `origins` those that may connect."""

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
        typer.Option(metavar="NAME", help="Endpoint that it must be for. Default: any of the settings'."),
    ] = None,
    keys_dir: Annotated[
        Path | None,
        typer.Option("--keys-dir", metavar="FOLDER", help="Check with these keys, and without settings."),
    ] = None,
    jwks: Annotated[
        str | None,
        typer.Option(
            "--jwks", metavar="URL|FILE", help="Check with the JWK Set that is there, and without settings."
        ),
    ] = None,
    audience: Annotated[
        str | None, typer.Option(metavar="URL", help="Without settings: the endpoint's URL, exactly.")
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(metavar="URL", help="Without settings: the issuer that it must be from.")
    ] = None,
    origin: Annotated[
        str | None, typer.Option(help='Browser origin that would connect; "" for one without.')
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a token would be accepted now, or every reason why not.

    Exit code 0: accepted; 1: refused; 2: the command itself was wrong, or the keys can't be had.
    An argument shows in the shell's history and the process list: pass a live token on standard input.
    """
    text = read_token(token)
    if keys_dir is None and jwks is None:
        wanted = _of_settings(config, endpoint, text, named=(audience, issuer))
    else:
        # a variable that names the settings is no wish, an option is; of two sources one would be ignored
        if getattr(context.get_parameter_source("config"), "name", "") == "COMMANDLINE":
            _refuse_two_sources()
        wanted = _of_options(keys_dir, jwks, text, endpoint=endpoint, audience=audience, issuer=issuer)
    now = time.time()
    refusals, subject = _judge(text, wanted, origin, now=now)
    unchecked = [*_unchecked(wanted, origin), _STATE_UNCHECKED]
    if as_json:
        answer = {"accepted": not refusals, "refusals": refusals_as_json(refusals), "unchecked": unchecked}
        typer.echo(json.dumps(answer | {"now": int(now)}, indent=2))
    else:
        verdict = f"It would be accepted now, {subject}." if not refusals else "It would be refused:"
        print_verdict(verdict, refusals, unchecked)
    raise typer.Exit(1 if refusals else 0)


def _refuse_two_sources() -> None:
    raise ConfigurationError("Give one of --config, --keys-dir and --jwks.")


# what the token must be


def _of_settings(
    config: Path | None, endpoint: str | None, text: str, *, named: tuple[str | None, str | None]
) -> _Wanted:
    from relay.server.options import issuer_options
    from relay.settings.load import load

    if any(name is not None for name in named):
        raise ConfigurationError(
            "--audience and --issuer go with --keys-dir or --jwks; with settings name the --endpoint."
        )
    settings = load(config_path(config))
    terms = issuer_options(settings).endpoints
    if endpoint is not None and endpoint not in terms:
        raise ConfigurationError(
            f"There is no [endpoints.{shown(endpoint, quoted=False)}]; the settings have {', '.join(terms)}."
        )
    url = settings.tokens.jwks_url
    return _Wanted(
        keys=load_keys(settings.tokens.keys_dir).verify if url is None else _fetched(url, text),
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
) -> _Wanted:
    if keys_dir is not None and jwks is not None:
        _refuse_two_sources()
    if endpoint is not None:
        raise ConfigurationError("--endpoint is a name from the settings; without them give --audience URL.")
    if keys_dir is not None:
        keys = load_keys(keys_dir).verify
    else:
        assert jwks is not None  # the caller's own check
        keys = _fetched(jwks, text) if "://" in jwks else _read_jwks(Path(jwks))
    return _Wanted(keys=keys, issuer=issuer, audiences=None if audience is None else {audience: ""})


def _fetched(url: str, text: str) -> Mapping[str, VerifyKey]:
    """Return the keys that the address has for this token, fetched as a stream on its own does."""
    check_jwks_url(url)

    async def fetch() -> Mapping[str, VerifyKey]:
        source = FetchedKeys(url)
        try:
            return await source.keys_for(text)
        finally:
            await source.aclose()

    try:
        with quiet_log():
            return anyio.run(fetch)
    except UnavailableError as error:
        raise ConfigurationError(f"The keys can't be had: {error}") from None


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


# what it is


def _judge(text: str, wanted: _Wanted, origin: str | None, *, now: float) -> tuple[tuple[Refusal, ...], str]:
    """Return every reason against the token, and in words whose and for what it is."""
    found = examine(text, wanted.keys, now=now, expected=None)
    payload = found.payload
    if not all(isinstance(payload.get(name), str) for name in ("iss", "aud", "scope", "origin")):
        return found.refusals, ""  # what can't be read can't be compared
    audience, scope = _right_audience(payload, wanted)
    expected = Expected(
        # what nobody named is compared with the token's own word, and so with nothing
        issuer=payload["iss"] if wanted.issuer is None else wanted.issuer,
        audience=audience,
        origin=origin,
        scope=scope,
    )
    refusals = examine(text, wanted.keys, now=now, expected=expected).refusals
    if origin is None and wanted.origins is not None and payload["origin"] not in {"", *wanted.origins}:
        refusals += (
            Refusal(
                reason=Reason.ORIGIN_REFUSED,
                detail=f"It was requested from {payload['origin'][:120]!r}, which is not an allowed origin.",
            ),
        )
    return refusals, f"for {shown(payload.get('sub'))} at {shown(payload['aud'])}"


def _right_audience(payload: Mapping[str, Any], wanted: _Wanted) -> tuple[str, str]:
    """Return the audience that the token must have, and the scope that goes with it."""
    own_scope = payload["scope"] if payload["scope"] in (SCOPE, SERVICE_SCOPE) else SCOPE
    if wanted.audiences is None:
        return payload["aud"], own_scope
    audience = payload["aud"] if payload["aud"] in wanted.audiences else next(iter(wanted.audiences))
    return audience, wanted.audiences[audience] or own_scope


def _unchecked(wanted: _Wanted, origin: str | None) -> list[str]:
    compared = {"audience": wanted.audiences, "issuer": wanted.issuer, "origin": wanted.origins or origin}
    return [
        f"The {name} was not compared: name the right one with --{name}."
        for name, value in compared.items()
        if value is None
    ]
