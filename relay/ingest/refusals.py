"""What many messages at once were refused for: an error for each publisher's message, one audit record a reason."""

from collections.abc import Mapping

from relay.core.closes import answer_for
from relay.core.errors import Reason, Refusal
from relay.core.events import Client
from relay.ingest.service import Ingest


class Refusals:
    """Collects the refusals of one batch or frame."""

    def __init__(self) -> None:
        self._details: dict[Reason, list[str]] = {}

    def __contains__(self, reason: Reason) -> bool:
        """Tell whether any was refused for this reason."""
        return reason in self._details

    def add(self, refusal: Refusal) -> Mapping[str, object]:
        """Note one; returns the members of its error."""
        answer = answer_for(refusal.reason)
        self._details.setdefault(refusal.reason, []).append(refusal.detail)
        return {
            "code": answer.code,
            "message": refusal.detail or answer.message,
            "retryable": answer.retryable,
        }

    def report(self, ingest: Ingest, client: Client, *, publisher: str) -> None:
        """Note them in the audit log: a thousand bad messages are one record with their number, and not a thousand."""
        for reason, details in self._details.items():
            ingest.deny(
                Refusal(reason=reason, detail=details[0]),
                client,
                status=answer_for(reason).status,
                publisher=publisher,
                count=len(details),
            )
