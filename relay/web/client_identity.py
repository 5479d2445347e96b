"""The client of an HTTP request (address, peer, User-Agent), for limits, the audit log and calls to a backend."""

import re
from collections.abc import Callable, Sequence

from starlette.requests import HTTPConnection

from relay.core.events import Client
from relay.net.addresses import Network, canonical_address, client_address


def client_reader(trusted: Sequence[Network]) -> Callable[[HTTPConnection], Client]:
    """Return a function from a request to its `Client`. X-Forwarded-For is read from `trusted` proxies only."""

    def read(request: HTTPConnection) -> Client:
        at = request.scope.get("client")  # Starlette's `client` makes an object each time
        peer = canonical_address(at[0]) if at else ""
        return Client(
            address=client_address(peer, request.headers.getlist("x-forwarded-for"), trusted),
            peer=peer,
            user_agent=request.headers.get("user-agent", ""),
        )

    return read


def forwarded_headers(client: Client) -> dict[str, str]:
    """Return the headers that tell a backend for whom a call is made.

    The address is the one that is believed here (`client_reader`), and never a list that a browser sent.
    """
    headers = {"X-Forwarded-For": client.address, "User-Agent": client.user_agent}
    # a field's value can't begin or end with white space, or hold other control characters (RFC 9110 §5.5)
    clean = {name: re.sub(r"[\x00-\x1f\x7f]", "", value).strip() for name, value in headers.items()}
    return {name: value for name, value in clean.items() if value}
