"""What looks like theft or abuse, marked on the audit log's records under `relay.anomalies`.

A mark refuses nobody: telephones change networks and browsers are updated while a token is on its way. It is for
the people and tools that read the log, who see what a single connection can't know.

Who asked for a token is compared with who connects with it. For that the token has the claim `asker`: a keyed
digest of the address and one of the User-Agent. A claim, because issuer and stream may be two processes, or the
relay may have been started anew in between. It costs 47 bytes of a token and 4 µs of a connect. The digests
are keyed with `session.ref_key` and with the token's own `jti`, so that a token tells nothing about its asker, and
two tokens of one browser nothing about each other. A token without the claim is compared with nothing: a
server-side caller's is, because it is somebody else who connects.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum

from relay.core.errors import Reason
from relay.core.events import Client
from relay.net.addresses import network_of

_DIGEST_BYTES = 6
"""Of each digest. They prove nothing: 48 bits are enough that nobody is mistaken for another."""


class Anomaly(StrEnum):
    """Every mark. A closed set: `ANOMALY_EXPLANATIONS` has a sentence for each."""

    REPLAY = "replay"
    WRONG_ENDPOINT = "wrong_endpoint"
    ORIGIN_MISMATCH = "origin_mismatch"
    OTHER_ADDRESS = "other_address"
    OTHER_BROWSER = "other_browser"
    DENIAL_BURST = "denial_burst"


ANOMALY_EXPLANATIONS: dict[Anomaly, str] = {
    Anomaly.REPLAY: "A token came a second time: it was copied, or its client retries what it should not.",
    Anomaly.WRONG_ENDPOINT: "A good token came to another endpoint than the one that it was issued for.",
    Anomaly.ORIGIN_MISMATCH: "A good token came from another browser origin than the one that asked for it.",
    Anomaly.OTHER_ADDRESS: "A token came from another address, or IPv6 /64, than the one that asked for it.",
    Anomaly.OTHER_BROWSER: "A token came with another User-Agent than the one that asked for it.",
    Anomaly.DENIAL_BURST: "So many requests of this user or address were refused in one minute that it is no accident.",
}
"""One sentence for each mark, for the audit log's readers."""

ANOMALY_OF: Mapping[Reason, Anomaly] = {
    Reason.TOKEN_REPLAYED: Anomaly.REPLAY,
    Reason.TOKEN_AUDIENCE: Anomaly.WRONG_ENDPOINT,
    Reason.TOKEN_ORIGIN: Anomaly.ORIGIN_MISMATCH,
    Reason.ORIGIN_MISSING: Anomaly.ORIGIN_MISMATCH,
}
"""The refusals of tokens that were signed here and are still alive. Each has a mark, and a record of its own."""


class ClientIdentity:
    """Makes the claim `asker`, and compares it with who comes."""

    def __init__(self, ref_key: bytes) -> None:
        key = hashlib.sha256(b"asker\0" + ref_key).digest()
        self._keyed = hashlib.blake2b(digest_size=_DIGEST_BYTES, key=key)

    def claim(self, jti: str, client: Client) -> str:
        """Return the claim for a token that `client` asks for."""
        return "".join(self._digests(jti, client))

    def differences(self, claim: str, jti: str, client: Client) -> list[Anomaly]:
        """Return in what `client` differs from the one that the claim was made for."""
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
