"""Publications that a relay must refuse, because browsers could not read the frame that carries them."""

from collections.abc import Awaitable, Callable

from tests.support.relay_process import Relay

DATA = {
    "invalid UTF-8": b'"\xff\xfe"',
    "a cut UTF-8 sequence": b'"\xe2\x82"',
    "an overlong encoding": b'"\xc0\xaf"',
    "an encoded surrogate": b'"\xed\xa0\x80"',
    "beyond Unicode": b'"\xf4\x90\x80\x80"',
    "a newline in a text": b'"a\nb"',
    "a carriage return in a text": b'"a\rb"',
    "a NUL in a text": b'"a\x00b"',
    "a tab in a text": b'"a\tb"',
    "an escape sequence in a text": b'"\x1b[31m"',
    "10,000 lists": b"[" * 10_000 + b"]" * 10_000,
    "10,000 objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "65 levels": b"[" * 64 + b"]" * 64,
    "30,000 open lists": b"[" * 30_000,
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "a number without end": b"1" * 50_000,
    "more digits than Python reads": b"1" * 4301,
    "a whole number beyond a double": b"2" + b"0" * 308,
    "a fraction beyond a double": b"[1.8e308]",
    "a large exponent": b"1e400",
    "a large negative number": b'{"bid":-1e400}',
    "a leading zero": b"01",
    "a bare word": b"undefined",
    "single quotes": b"'a'",
    "a comment": b"1/*x*/",
    "a trailing comma": b"[1,]",
    "a second value": b"1 2",
    "the frame's end": b'1}{"type":"update"',
    "nothing": b"",
    "a member twice": b'{"a":1,"a":2}',
    "a lone surrogate": b'"\\ud800"',
    "a lone low surrogate": b'{"a":["\\udc00 text"]}',
    "surrogates in the wrong order": b'"\\udc00\\ud800"',
    "a lone surrogate in a name": b'{"\\ud83d":1}',
    "a bad escape": b'"\\x41"',
    "a cut escape": b'"\\u12"',
}


BODIES = {
    "empty": b"",
    "not JSON": b"channel=prices.POISON&data=1",
    "a byte order mark": b'\xef\xbb\xbf{"channel":"prices.POISON","data":1}',
    "UTF-16": '{"channel":"prices.POISON","data":1}'.encode("utf-16"),
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "two documents": b'{"channel":"prices.POISON","data":1}{"channel":"prices.POISON","data":2}',
    "two lines": b'{"channel":"prices.POISON","data":1}\n{"channel":"prices.POISON","data":2}',
    "data twice": b'{"channel":"prices.POISON","data":1,"data":2}',
    "the channel twice": b'{"channel":"prices.A","channel":"prices.POISON","data":1}',
    "an escaped duplicate": b'{"channel":"prices.POISON","data":1,"d\\u0061ta":2}',
    "cut off": b'{"channel":"prices.POISON","data":{"a":',
    "invalid UTF-8 in a name": b'{"channel":"prices.POISON","data":1,"\xff":1}',
}


async def watch(relay: Relay, publish_all: Callable[[], Awaitable[None]]) -> None:
    """Check that a subscriber sees nothing of what is published, and goes on to the next good tick."""
    before = (await relay.publish("prices.POISON", "first")).json()["seq"]
    async with relay.connect(await relay.token(channels=["prices.POISON"])) as socket:
        await socket.read("subscribed")
        await socket.read("snapshot")
        await publish_all()
        good = await relay.publish("prices.POISON", "good")
        assert good.json()["seq"] == before + 1, "nothing was numbered"
        frame = await socket.next()
        while frame["type"] == "status":  # on a busy machine the channel was silent for a while
            frame = await socket.next()
        assert frame["type"] == "update"
        assert (frame["seq"], frame["data"]) == (before + 1, "good")
        async with relay.connect(await relay.token(channels=["prices.POISON"])) as late:
            await late.read("subscribed")
            assert (await late.read("snapshot"))["data"] == "good", "nothing was stored"
