"""What a WebSocket handshake asks for, read strictly: the endpoint, the token, the channels.

The path is compared as it came. `/ws/prices/../admin`, `%2e%2e`, `//ws/prices`, `/ws/prices;x=1` and absolute
URLs all reach this code unchanged, and a path that is normalised anywhere can be made to mean two things.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from websockets.datastructures import Headers
from websockets.http11 import Request

from relay.core.errors import Reason, Refusal
from relay.core.messages import MAX_CHANNELS_A_FRAME, PROTOCOL

BEARER = "bearer."
MAX_FIELDS = 16
"""Members of a query string that are looked at: three are ours, proxies and cache busters add some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The request of one handshake. `token` "" and `transport` "first_message": the token is to come as a frame."""

    token: str = field(repr=False)
    transport: str
    channels: tuple[str, ...]
    interval_ms: int


def read_handshake(request: Request, *, transports: Collection[str]) -> Asked | Refusal:
    """Read the one token and the subscriptions out of a handshake."""
    _, _, query = request.path.partition("?")
    try:
        fields = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            max_num_fields=MAX_FIELDS,
            errors="strict",
        )
    except (ValueError, UnicodeError):
        return Refusal(reason=Reason.HANDSHAKE_MALFORMED, detail="The query string is malformed.")
    values: dict[str, str] = {}
    for name, value in fields:
        if name in values and name in ("token", "channels", "interval_ms"):
            reason = Reason.TOKEN_REPEATED if name == "token" else Reason.HANDSHAKE_MALFORMED
            return Refusal(reason=reason, detail=f"{name} came twice in the query string.")
        values[name] = value
    token = _one_token(request.headers, values, transports=transports)
    if isinstance(token, Refusal):
        return token
    channels = tuple(channel for channel in values.get("channels", "").split(",") if channel)
    if len(channels) > MAX_CHANNELS_A_FRAME:
        return Refusal(reason=Reason.CHANNELS_TOO_MANY, detail=f"{len(channels)} channels in the URL.")
    interval = values.get("interval_ms", "0")
    if not interval.isascii() or not interval.isdigit() or len(interval) > 6:
        return Refusal(reason=Reason.HANDSHAKE_MALFORMED, detail="interval_ms is a whole number.")
    text, transport = token
    return Asked(token=text, transport=transport, channels=channels, interval_ms=int(interval))


def offered_protocols(headers: Headers) -> list[str]:
    """Return the members of Sec-WebSocket-Protocol, whose header may come more than once (RFC 6455 §4.1)."""
    return [part.strip() for value in headers.get_all("Sec-WebSocket-Protocol") for part in value.split(",")]


def _one_token(
    headers: Headers, query: dict[str, str], *, transports: Collection[str]
) -> tuple[str, str] | Refusal:
    protocols = offered_protocols(headers)
    found = [(part.removeprefix(BEARER), "subprotocol") for part in protocols if part.startswith(BEARER)]
    if "token" in query:
        found.append((query["token"], "query"))
    if len(found) > 1:
        return Refusal(reason=Reason.TOKEN_REPEATED)
    if not found:
        if "first_message" in transports:
            return "", "first_message"
        return Refusal(reason=Reason.TOKEN_MISSING)
    token, transport = found[0]
    if transport not in transports:
        return Refusal(reason=Reason.TOKEN_TRANSPORT, detail=f"Tokens may not come by {transport} here.")
    if transport == "subprotocol" and PROTOCOL not in protocols:
        # without it the server has nothing to select, and browsers fail the handshake without a reason
        return Refusal(reason=Reason.HANDSHAKE_MALFORMED, detail=f"Offer {PROTOCOL} beside the token.")
    if not token:
        return Refusal(reason=Reason.TOKEN_MISSING)
    return token, transport
