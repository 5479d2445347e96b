"""TLS on the three listeners: issuer, stream and publishing over it, and nothing without it."""

import asyncio
import json
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidHandshake

from relay.client import Publisher, ScopedToken, Snapshot, Subscriber, TokenError, fetch_token
from tests.support.certificates import Authority
from tests.support.http_client import http_client
from tests.support.raw_http import exchange, head
from tests.support.relay_process import PUBLISHER_KEY, Relay
from tests.support.shared_relay import assert_quiet
from tests.support.tls_clients import price, take_token, visit


def public(relay: Relay) -> str:
    """Return the address that browsers call."""
    return f"https://127.0.0.1:{relay.ports[0]}"


def internal(relay: Relay) -> str:
    """Return the address that backends call."""
    return f"https://127.0.0.1:{relay.ports[2]}"


@pytest.fixture
def running(secure: Relay) -> Iterator[Relay]:
    """A relay with TLS on all listeners."""
    secure.start()
    yield secure
    secure.stop()
    assert_quiet(secure)


async def test_the_whole_journey_over_tls(running: Relay, ca: ssl.SSLContext) -> None:
    """A token over https opens a wss socket, which gets a price that was published over https."""
    async with visit(running, public(running), ca) as (socket, _):
        await price(running, internal(running), socket, ca, "64123.41")
    record = await running.audited("connect.accepted")
    assert record["relay"]["token"]["aud"].startswith("wss://")


async def test_an_event_stream_over_tls(running: Relay, ca: ssl.SSLContext) -> None:
    """Its prices come in their order, and a restart ends it with a last event, after which the connection closes."""
    stream = public(running).replace(str(running.ports[0]), str(running.ports[1]))
    headers = {"Accept": "text/event-stream", "Origin": public(running)}
    async with http_client(verify=ca) as client:
        fields = {"Cookie": f"access-token={running.session()}", "Origin": public(running)}
        answer = await client.post(f"{public(running)}/auth/ws-token", headers=fields)
        headers["Authorization"] = f"Bearer {answer.json()['wsToken']}"
        query = {"channels": "prices.BTC-USD"}
        async with client.stream("GET", f"{stream}/ws/prices", params=query, headers=headers) as events:
            assert events.status_code == 200
            messages = (
                json.loads(line[6:]) async for line in events.aiter_lines() if line.startswith("data: ")
            )
            while (await anext(messages))["type"] != "subscribed":
                pass
            for number in range(3):
                body = {"channel": "prices.BTC-USD", "data": number}
                key = {"Authorization": f"Bearer {PUBLISHER_KEY}"}
                await client.post(f"{internal(running)}/v1/publish", json=body, headers=key)
                assert (await anext(messages))["data"] == number
            assert await asyncio.to_thread(running.stop) == 0
            last = [message async for message in messages][-1]
            assert (last["type"], last["code"]) == ("close", 1012)


async def test_the_python_client_over_tls(
    running: Relay, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publisher, issuer and subscriber believe an authority that this machine knows, and no stranger."""

    async def token() -> ScopedToken:
        return await fetch_token(public(running), running.session())

    with pytest.raises(TokenError, match="can't be reached"):
        await token()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    async with Publisher(internal(running), PUBLISHER_KEY) as publisher:
        await publisher.publish("prices.BTC-USD", {"bid": "1"})
    async with Subscriber((await token()).endpoint, token) as prices:
        await prices.subscribe(["prices.BTC-USD"])
        async with asyncio.timeout(10):
            async for event in prices:
                if isinstance(event, Snapshot):
                    assert event.data == {"bid": "1"}
                    return


async def test_no_handshake_is_left_hanging(running: Relay, ca: ssl.SSLContext) -> None:
    """Each of many connections gets its welcome and its subscription at once, and not only most of them."""
    for _ in range(20):
        async with asyncio.timeout(4), visit(running, public(running), ca):
            pass


async def test_a_reader_that_stops_gets_the_newest_price_later(running: Relay, ca: ssl.SSLContext) -> None:
    """TLS holds no queue of old prices: after a pause the reader goes on with the newest."""
    padding = "x" * 50_000
    async with visit(running, public(running), ca) as (socket, _):
        transport = socket.websocket.transport
        transport.pause_reading()
        async with http_client(verify=ca) as client:
            for number in range(200):
                body = {"channel": "prices.BTC-USD", "data": {"bid": number, "padding": padding}}
                headers = {"Authorization": f"Bearer {PUBLISHER_KEY}"}
                answer = await client.post(f"{internal(running)}/v1/publish", json=body, headers=headers)
                assert answer.status_code == 200
        transport.resume_reading()
        seen: list[int] = []
        while not seen or seen[-1] != 199:
            seen.append((await socket.next())["data"]["bid"])
    assert len(seen) < 200, "10 MB would have piled up somewhere"


async def test_plain_http_gets_nothing(running: Relay) -> None:
    """A client without TLS gets no HTTP answer from any of the listeners."""
    data = head("GET", "/live", [("Host", "127.0.0.1")])
    for port in running.ports:
        assert (await exchange(port, data)).status == 0


async def test_old_versions_are_refused(running: Relay, authority: Authority) -> None:
    """TLS 1.2 and 1.3 are spoken on each listener, 1.1 is not."""
    old = authority.client_context()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    for port in running.ports:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = authority.client_context()
            context.minimum_version = context.maximum_version = version
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            assert writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
            writer.close()
        with pytest.raises(OSError):  # noqa: PT011  # an alert or a reset, as the system likes
            await asyncio.open_connection("127.0.0.1", port, ssl=old)


async def test_silent_connections_end(running: Relay) -> None:
    """Who connects and begins no TLS handshake is let go after five seconds, not a minute."""
    streams = [await asyncio.open_connection("127.0.0.1", port) for port in running.ports]
    async with asyncio.timeout(20):
        assert [await reader.read() for reader, _ in streams] == [b"", b"", b""]
    for _, writer in streams:
        writer.close()


async def test_hsts_is_for_browsers(running: Relay, ca: ssl.SSLContext) -> None:
    """The public listener tells browsers to come over TLS only; the internal one is not for them."""
    async with http_client(verify=ca) as client:
        answer = await client.get(f"{public(running)}/.well-known/jwks.json")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert "strict-transport-security" not in (await client.get(f"{internal(running)}/live")).headers


async def serial(port: int, ca: ssl.SSLContext) -> object:
    """Return the serial number of the certificate that is served."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ca)
    found = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    return found


async def logged(relay: Relay, text: str) -> None:
    """Wait until the relay has said this."""
    async with asyncio.timeout(10):
        while True:
            if text in relay.log_path.read_text():
                return
            await asyncio.sleep(0.01)  # the log is a file: there is nothing to await


async def test_sighup_loads_a_renewed_certificate_and_keeps_connections(
    running: Relay, authority: Authority, ca: ssl.SSLContext
) -> None:
    """SIGHUP takes the new files on all listeners; who is connected stays connected."""
    assert running.process is not None
    before = await serial(running.ports[0], ca)
    async with visit(running, public(running), ca) as (socket, _):
        authority.issue("127.0.0.1")
        running.process.send_signal(signal.SIGHUP)
        await logged(running, "listen.tls (certificate)")
        after = {await serial(port, ca) for port in running.ports}
        assert len(after) == 1
        assert before not in after
        await price(running, internal(running), socket, ca, "1.00")


async def test_a_bad_renewal_changes_nothing(
    running: Relay, authority: Authority, ca: ssl.SSLContext
) -> None:
    """A key that does not fit, on SIGHUP: the log says so, and the old certificate is served on."""
    assert running.process is not None
    before = await serial(running.ports[1], ca)
    pair, other = authority.issue("127.0.0.1"), authority.issue("127.0.0.1", file="other")
    other.key.rename(pair.key)
    running.process.send_signal(signal.SIGHUP)
    await logged(running, "is not the key of the certificate")
    assert await serial(running.ports[1], ca) == before
    await take_token(running, public(running), ca)


async def test_another_authority_is_not_believed(running: Relay, tmp_path: Path) -> None:
    """The clients of these tests do check: with another authority nothing works."""
    folder = tmp_path / "other"
    folder.mkdir()
    stranger = Authority(folder).client_context()
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        await take_token(running, public(running), stranger)
    with pytest.raises((ssl.SSLCertVerificationError, InvalidHandshake)):
        await serial(running.ports[1], stranger)
