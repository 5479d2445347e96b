"""`read_handshake` on its own: any request line and header is read in one way, or refused."""

from hypothesis import example, given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request

from relay.core.errors import Refusal
from relay.stream.gate import HandshakeRequest
from relay.stream.handshake import offered_protocols, read_handshake

ALL = ("subprotocol", "query", "first_message")
printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)
member = st.sampled_from(["token", "channels", "interval_ms", "%74oken", "x"])
query = printable | st.lists(st.tuples(member, printable), max_size=5).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)
protocol = printable | st.sampled_from(["relay.v1", "bearer.abc", "bearer.", "relay.v1, bearer.abc", ","])


def request(query: str, *protocols: str) -> Request:
    """Return a handshake with this query and these Sec-WebSocket-Protocol headers."""
    headers = Headers()
    for value in protocols:
        headers["Sec-WebSocket-Protocol"] = value
    return Request(f"/ws/prices?{query}" if query else "/ws/prices", headers)


@given(query, st.lists(protocol, max_size=3), st.lists(st.sampled_from(ALL), min_size=1))
@example("token=a", ["relay.v1"], ["query"])
@example("token=%ff", [], ["query"])
@example("interval_ms=\u0661", [], ["first_message"])
def test_any_handshake_is_read_or_refused(query: str, protocols: list[str], transports: list[str]) -> None:
    """The result has one token of an allowed transport, or none if it may still come, and numbers within bounds."""
    found = read_handshake(request(query, *protocols), transports=transports)
    if isinstance(found, HandshakeRequest):
        assert found.transport in transports
        assert bool(found.token) == (found.transport != "first_message")
        assert 0 <= found.interval_ms < 1_000_000
        assert len(found.channels) <= 256
        assert all(found.channels)
        assert "token=" not in repr(found)
    else:
        assert isinstance(found, Refusal)
        assert "abc" not in found.detail, "a refusal's detail is logged"


def test_protocols_are_put_together_over_headers() -> None:
    """The header may come several times, and its members may have white space around them."""
    assert offered_protocols(request("", "a, b", " c ,d").headers) == ["a", "b", "c", "d"]
