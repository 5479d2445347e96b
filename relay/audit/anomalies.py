"""Anomalies: signs of theft or abuse, listed in `relay.anomalies` of a record.

An anomaly refuses nothing, because phones change networks and browsers are updated between a token's issue and its
use. It is for the people and programs that read the log and see more than one connection.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum

from relay.core.errors import Reason
from relay.core.events import Client, Event
from relay.net.addresses import network_of

_DIGEST_BYTES = 6
"""Bytes of each digest. It is no proof; 48 bits are enough that two clients hardly ever have the same."""


class Anomaly(StrEnum):
    """Every anomaly. A closed set: `ANOMALY_EXPLANATIONS` has a sentence for each."""

    REPLAY = "replay"
    WRONG_ENDPOINT = "wrong_endpoint"
    ORIGIN_MISMATCH = "origin_mismatch"
    OTHER_ADDRESS = "other_address"
    OTHER_BROWSER = "other_browser"
    DENIAL_BURST = "denial_burst"
    REFRESH_REUSE = "refresh_reuse"


ANOMALY_EXPLANATIONS: dict[Anomaly, str] = {
    Anomaly.REPLAY: "A token was used a second time: it was copied, or its client repeats a handshake.",
    Anomaly.WRONG_ENDPOINT: "A valid token was used at another endpoint than the one that it was issued for.",
    Anomaly.ORIGIN_MISMATCH: "A token was used from another browser origin than the one that requested it.",
    Anomaly.OTHER_ADDRESS: "A token was used from another address, or IPv6 /64, than the one that requested it.",
    Anomaly.OTHER_BROWSER: "A token was used with another User-Agent than the one that requested it.",
    Anomaly.REFRESH_REUSE: (
        "A refresh cookie came after a newer one of the same log-in: it was copied, or a browser was restored."
    ),
    Anomaly.DENIAL_BURST: "More requests of this user or address were refused in one minute than by accident.",
}
"""One sentence for each anomaly, for readers of the audit log."""

_ANOMALY_OF: Mapping[Reason, Anomaly] = {
    Reason.TOKEN_REPLAYED: Anomaly.REPLAY,
    Reason.TOKEN_AUDIENCE: Anomaly.WRONG_ENDPOINT,
    Reason.TOKEN_ORIGIN: Anomaly.ORIGIN_MISMATCH,
    Reason.ORIGIN_MISSING: Anomaly.ORIGIN_MISMATCH,
    Reason.ORIGIN_REFUSED: Anomaly.ORIGIN_MISMATCH,
}


def refused_token_anomaly(event: Event) -> Anomaly | None:
    """Return the anomaly of the refusal of a token that was genuine, or None.

    What a token only claims is no anomaly: anybody can write a token that names somebody else.
    """
    if event.reason is Reason.REFRESH_SPENT:
        return Anomaly.REFRESH_REUSE
    if event.reason is None or event.reason not in _ANOMALY_OF:
        return None
    token = event.relay.get("token", {})
    if not token.get("jti"):
        return None
    # an origin can be taken from the settings after its pages have requested tokens
    if event.reason is Reason.ORIGIN_REFUSED and token.get("origin") == event.relay.get("origin"):
        return None
    return _ANOMALY_OF[event.reason]


def looks_like_theft(event: Event) -> bool:
    """Tell whether an event is the refusal of a genuine token or refresh token that somebody else seems to use."""
    return refused_token_anomaly(event) is not None


class ClientIdentity:
    """Compares the client that requested a token with the client that connects with it.

    The token's claim `asker` has a keyed digest of the address and one of the User-Agent. It is a claim because the
    issuer and the stream may be two processes, or the relay may have restarted in between. It costs 47 bytes of a
    token and 4 µs of a connect. The digests are keyed with `session.ref_key` and with the token's `jti`: a token says
    nothing about its client, and two tokens of one browser can't be linked. Tokens of server-side callers don't have
    the claim, because another client connects with them.
    """

    def __init__(self, ref_key: bytes) -> None:
        key = hashlib.sha256(b"asker\0" + ref_key).digest()
        self._keyed = hashlib.blake2b(digest_size=_DIGEST_BYTES, key=key)

    def claim(self, jti: str, client: Client) -> str:
        """Return the claim for a token that `client` requests."""
        return "".join(self._digests(jti, client))

    def differences(self, claim: str, jti: str, client: Client) -> list[Anomaly]:
        """Return how `client` differs from the client that the claim was made for."""
        address, browser = self._digests(jti, client)
        found = []
        if claim[: len(address)] != address:
            found.append(Anomaly.OTHER_ADDRESS)
        if claim[len(address) :] != browser:
            found.append(Anomaly.OTHER_BROWSER)
        return found

    def _digests(self, jti: str, client: Client) -> tuple[str, str]:
        return (
            self._digest(f"{jti}\0address\0{network_of(client.address)}"),
            self._digest(f"{jti}\0browser\0{client.user_agent}"),
        )

    def _digest(self, text: str) -> str:
        digest = self._keyed.copy()
        digest.update(text.encode("utf-8", "replace"))
        return digest.hexdigest()
