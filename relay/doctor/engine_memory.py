"""How much memory the engine can need for a deployment's settings.

Each part is its worst case under the limits of the settings, as far as they have one. Two things have none: how long
messages are on average, and how many nodes there are. Messages count with what the quotas of the publishers imply, and
1 KiB without. Nodes count as the engine knows them.
"""

from collections.abc import Sequence

from relay.core.messages import Mode
from relay.core.patterns import may_overlap
from relay.limits.quotas import Quota, QuotaTerms
from relay.settings.load import Settings
from relay.settings.sections import Publisher

MESSAGE_BYTES = 1024
"""Bytes of a message, on average, of publishers whose quotas do not tell."""
ENTRY_BYTES = 120
"""Bytes that a message needs beside its own: the name of its channel, position, and what the engine adds."""
TRIMMED = 100
"""Messages by which a history is longer than it has to be: the engine trims blocks of them."""
CLAIM_BYTES, CLAIM_KEPT_S = 110, 240
CONNECTS_PER_S = 2000
"""Connections that a node can accept in a second. Each uses one token."""
PLACE_BYTES = 150
LOGIN_BYTES = 4096


def memory_need(settings: Settings, *, nodes: int) -> dict[str, int]:
    """Return the bytes that each part of the data can need."""
    limits, connections = settings.limits, settings.limits.connections * nodes
    a_session_s = Quota(QuotaTerms(rate=limits.tokens_per_session), now=0).rates[0][0]
    claims_s = min(connections * a_session_s, CONNECTS_PER_S * nodes)
    renews = settings.bff.backend is not None and bool(settings.bff.fields.refresh_token)
    return {
        "the log": settings.engine.log_bytes * 9 // 8,  # it is cut in eighths
        "last values": limits.channels * (_message_bytes(list(settings.publishers.values())) + ENTRY_BYTES),
        "histories": _histories(settings),
        "used tokens": int(claims_s * CLAIM_KEPT_S * CLAIM_BYTES),
        "places of connections": connections * PLACE_BYTES,
        "log-ins": connections * LOGIN_BYTES if renews else 0,
    }


def _histories(settings: Settings) -> int:
    """Return the bytes of all histories: the endpoint with the most of them may have all channels.

    A history expires as a whole, `seconds` after its newest message. So a busy one always has all its messages.
    """
    sizes = [0]
    for endpoint in settings.sockets.values():
        messages = endpoint.history.messages
        if endpoint.mode is not Mode.STREAM or not messages:
            continue
        is_listed = not any("*" in name or ">" in name for name in endpoint.channels)
        channels = (
            min(settings.limits.channels, len(endpoint.channels)) if is_listed else settings.limits.channels
        )
        publishers = [
            one
            for one in settings.publishers.values()
            if any(may_overlap(mine, theirs) for mine in one.channels for theirs in endpoint.channels)
        ]
        sizes.append(channels * (messages + TRIMMED) * (_message_bytes(publishers) + ENTRY_BYTES))
    return max(sizes)


def _message_bytes(publishers: Sequence[Publisher]) -> int:
    """Return the bytes of a message on average: the most that a publisher's quotas imply, if it has both."""
    rates = [_rates(one) for one in publishers]
    implied = [
        int(byte_rate / rate) if rate and byte_rate else MESSAGE_BYTES for (rate, _), (byte_rate, _) in rates
    ]
    return max(implied, default=MESSAGE_BYTES)


def _rates(publisher: Publisher) -> tuple[tuple[float, float], tuple[float, float]]:
    return Quota(QuotaTerms(rate=publisher.rate, byte_rate=publisher.byte_rate), now=0).rates
