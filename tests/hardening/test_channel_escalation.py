"""Channel escalation: a token for one channel gets that one, however the others are spelled and how many they are."""

from typing import Any

from tests.support.raw_http import ask, bearing, exchange, head, knock, upgrade
from tests.support.relay_process import Relay, Socket

OWN = "prices.BTC-USD"
OTHERS = [
    *(">", "*", "*.*", "prices.>", "prices.*", "*.BTC-USD", "prices.BTC-USD.>", "prices.BTC-USD.*", "*.>"),
    *(
        "prices",
        "prices.ETH-USD",
        "depth.BTC-USD",
        "trades.A",
        "prices.BTC-USD.X",
        "prices.BTC",
        "prices.BTC-USD2",
    ),
    *("prices.btc-usd", "Prices.BTC-USD", "PRICES.BTC-USD"),
    *(
        " prices.BTC-USD",
        "prices.BTC-USD ",
        "prices .BTC-USD",
        "prices..BTC-USD",
        ".prices.BTC-USD",
        "prices.BTC-USD.",
    ),
    *("prices.BTC-USD\x00", "prices.BTC-USD\n", "prices.BTC-USD,prices.ETH-USD", "prices.BTC-USD|prices.>"),
    *(
        "prices/BTC-USD",
        "prices.%42TC-USD",
        "prices.BTC%2DUSD",
        "prices.\\u0042TC-USD",
        "prices.>.BTC-USD",
        "prices.>>",
    ),
    *(
        "prices.\u0412TC-USD",
        "prices.\uff22TC-USD",
        "prices.B\u200bTC-USD",
        "prices.BTC\u2010USD",
        "pr\u0131ces.BTC-USD",
    ),
    *(
        "prices\uff0eBTC-USD",
        "prices.\uff1e",
        "prices.\u2217",
        "\u202eDSU-CTB.secirp",
        "prices.BTC-USD\u0301",
    ),
    *(
        "",
        "..",
        "../prices.ETH-USD",
        "prices.?",
        "prices.[A-Z]",
        "$SYS.>",
        "_INBOX.>",
        "prices.#",
        "prices.+",
    ),
]
"""Wildcards of NATS and of others, other cases, spaces, escapes, and what looks like the own channel and is not."""


async def guest(relay: Relay) -> str:
    """Return a token for `prices.BTC-USD` and nothing else."""
    return await relay.token(relay.session(roles=["guest"]))


async def only_its_own(relay: Relay, socket: Socket) -> None:
    """Publish to other channels and then to the own one: the own one's tick is the next thing that comes."""
    for channel in ("prices.ETH-USD", "prices.btc-usd", "prices.BTC-USD.X", "trades.A", OWN):
        assert (await relay.publish(channel, f"for {channel}")).status_code == 200
    message = await socket.next()
    assert message["type"] in ("snapshot", "update"), message
    assert message["channel"] == OWN
    assert message["data"] == f"for {OWN}"


async def opened(relay: Relay, socket: Socket) -> None:
    """Read up to where the guest's own channel is subscribed and has its value."""
    ack = await socket.read("subscribed")
    assert [entry["channel"] for entry in ack["channels"]] == [OWN]
    if ack["channels"][0]["seq"]:
        await socket.read("snapshot")


def refused(ack: dict[str, Any]) -> list[str]:
    """Return what was refused; each entry has a code that says so and none has been let through."""
    assert ack["channels"] == []
    assert {entry["code"] for entry in ack["rejected"]} <= {"forbidden", "malformed"}
    return [entry["channel"] for entry in ack["rejected"]]


async def test_a_frame_gets_no_other_channel(relay: Relay) -> None:
    """Every spelling at once and some one by one, with `since`, too: all are named as refused, and nothing comes."""
    async with relay.connect(await guest(relay)) as socket:
        await opened(relay, socket)
        await socket.send(type="subscribe", id=1, channels=OTHERS)
        assert refused(await socket.read("subscribed")) == list(dict.fromkeys(OTHERS))
        for channel in (">", "prices.*", "prices.ETH-USD"):
            since = {channel: {"epoch": "", "seq": 0}}
            await socket.send(type="subscribe", id=2, channels=[channel], since=since, interval_ms=0)
            assert refused(await socket.read("subscribed")) == [channel]
        await only_its_own(relay, socket)
    await relay.audited("subscribe.denied", reason="channel_forbidden")


async def test_a_url_gets_no_other_channel(relay: Relay) -> None:
    """The same for channels in the query; what is refused there does not come back as what the token names."""
    query = "?channels=prices.%3E,*,prices.ETH-USD,prices.%CE%92TC-USD,prices.btc-usd,%3E,prices.BTC-USD.%3E"
    async with relay.connect(await guest(relay), query=query) as socket:
        assert len(refused(await socket.read("subscribed"))) == 7
        await socket.send(type="subscribe", id=1, channels=[OWN])
        await opened(relay, socket)
        await only_its_own(relay, socket)


async def test_the_issuer_grants_no_other_channel(relay: Relay) -> None:
    """What a role does not grant is in no token: 403 or 400 alone, or a token for the role's own channel."""
    session = relay.session(roles=["guest"])
    for channel in OTHERS:
        answer = await ask(relay, {"channels": [channel]}, session=session)
        assert answer.status in (400, 403) or answer.json["channels"] == [OWN], channel
        answer = await ask(relay, {"channels": [OWN, channel]}, session=session)
        assert answer.status == 400 or answer.json["channels"] == [OWN], channel


async def test_a_refresh_widens_nothing(relay: Relay) -> None:
    """A token for everything, of the same user, does not open what the connection's first one did not."""
    session = relay.session(roles=["guest"], sub="climber")
    async with relay.connect(await relay.token(session)) as socket:
        await opened(relay, socket)
        await socket.send(type="refresh", id=1, token=await relay.token(relay.session(sub="climber")))
        await socket.read("refreshed")
        await socket.send(type="subscribe", id=2, channels=["prices.>", "prices.ETH-USD"])
        assert refused(await socket.read("subscribed")) == ["prices.>", "prices.ETH-USD"]
        await only_its_own(relay, socket)


async def test_a_connection_takes_1024_of_ten_thousand_channels(relay: Relay) -> None:
    """Of a trader who may have all of them a connection takes 1024, a frame names 256, and a URL its line's worth."""
    names = [f"prices.C{number:05}" for number in range(10_000)]
    async with relay.connect(await relay.token(channels=["prices.>"])) as socket:
        await socket.read("error")
        taken = 0
        for start in range(0, len(names), 800):
            await socket.send(type="subscribe", channels=names[start : start + 800])
            ack = await socket.read("subscribed")
            taken += len(ack["channels"])
            assert len(ack["channels"]) <= 256
            assert {entry["code"] for entry in ack["rejected"]} == {"too_many_channels"}
        assert taken == 1024
        await socket.send(type="subscribe", channels=["prices.C09999"])
        assert (await socket.read("subscribed"))["rejected"][0]["code"] == "too_many_channels"
        await socket.websocket.send('{"type":"subscribe","channels":["' + '","'.join(names) + '"]}')
        assert (await socket.closed())[0] == 1009
    for count, statuses in ((256, {101}), (257, {400}), (10_000, {0, 400, 414, 431})):
        listed = ",".join(f"p.{number}" for number in range(count))
        fields = [*upgrade(relay), bearing(await relay.token())]
        assert (await knock(relay, f"/ws/prices?channels={listed}", fields)).status in statuses, count
    body = b'{"channels":["' + '","'.join(names).encode() + b'"]}'
    fields = [
        ("Host", "x"),
        ("Authorization", f"Bearer {relay.session()}"),
        ("Content-Type", "application/json"),
    ]
    data = head("POST", "/auth/ws-token", [*fields, ("Content-Length", str(len(body)))]) + body
    assert (await exchange(relay.ports[0], data)).status in (400, 413)
