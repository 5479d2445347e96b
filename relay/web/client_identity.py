"""The client of an HTTP request (address, peer, User-Agent), for limits and the audit log."""

from collections.abc import Callable, Sequence

from starlette.requests import HTTPConnection

from relay.core.events import Client
from relay.net.addresses import Network, canonical_address, client_address


def client_reader(trusted: Sequence[Network]) -> Callable[[HTTPConnection], Client]:
    """Return a function from a request to its `Client`. X-Forwarded-For is read from `trusted` proxies only."""

    def read(request: HTTPConnection) -> Client:
        peer = canonical_address(request.client.host) if request.client else ""
        return Client(
            address=client_address(peer, request.headers.getlist("x-forwarded-for"), trusted),
            peer=peer,
            user_agent=request.headers.get("user-agent", ""),
        )

    return read
