"""The process's own log: values that look like secrets are hidden, and no client can forge a line."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import EXPLANATIONS
from relay.server import logs

Format = Literal["auto", "text", "json"]
Write = Callable[[Any], object]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Restore the logging of the process after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {
        name: logging.getLogger(name).level
        for name in ("websockets", "uvicorn", "httpx", "httpcore", "asyncio")
    }
    yield
    root.handlers[:], root.level = handlers, level
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


def written(write: Write, *, format: Format = "json", level: str = "debug") -> str:  # noqa: A002 - the setting's name
    """Return what `write` logs. It is called with a logger."""
    stream = io.StringIO()
    logs.configure(level=level, format=format, stream=stream)
    write(structlog.get_logger("relay"))
    return stream.getvalue()


def event(write: Write) -> dict[str, Any]:
    """Return the one event that `write` logs, as JSON."""
    [line] = written(write).splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"refused {JWT}", JWT),
        (f"refused {JWT[:60]}", "eyJ"),
        ("eyJhbGciOiJIUzI1NiJ9", "eyJ"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("authorization: Basic YTpi", "YTpi"),
        ("got bearer abc.def", "abc.def"),
        ("relay.v1, bearer.abc-def_", "abc-def_"),
        ("Cookie: a=SECRET; b=SECRET", "SECRET"),
        ("{'Cookie': 'a=SECRET'}", "SECRET"),
        ("('cookie', 'a=SECRET')", "SECRET"),
        ("Set-Cookie: a=SECRET; HttpOnly", "SECRET"),
        ("Sec-WebSocket-Protocol: relay.v1, SECRET", "SECRET"),
        ("GET /ws/prices?token=SECRET&a=b HTTP/1.1", "SECRET"),
        ("http://x/y?SECRET", "SECRET"),
        ("'http://x/y?SECRET'", "SECRET"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, secret: str) -> None:
    """A secret is hidden in the message, in a value, nested, in a library's message, and in an exception."""

    def fail(log: Any) -> None:
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("failed")

    for write in (
        lambda log: log.info(text),
        lambda log: log.info("x", value=text),
        lambda log: log.info("x", value={"a": [text, (text,)]}),
        lambda log: log.info("x", value=ValueError(text)),
        lambda log: logging.getLogger("library").warning("%s", text),
        fail,
    ):
        out = written(write)
        assert secret not in out.replace(f'raise ValueError("{text}")', ""), out
        assert logs.HIDDEN in out
    assert secret not in logs.redact(text)


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "wsToken",
        "access_token",
        "cookie",
        "Authorization",
        "password",
        "secret",
        "query_string",
        "api_key",
    ],
)
def test_what_is_called_like_a_secret_is_hidden(name: str) -> None:
    """A value with the name of a secret is hidden, whatever it is, and also in a nested value."""
    found = event(lambda log: log.info("x", **{name: "SECRET", "outer": {name: "SECRET", "kept": 1}}))
    assert found[name] == logs.HIDDEN
    assert found["outer"] == {name: logs.HIDDEN, "kept": 1}


def test_headers_that_no_parser_took_are_hidden() -> None:
    """The rest of the line is hidden when an exception quotes a header without a colon."""

    def fail(line: str) -> Write:
        def write(log: Any) -> None:
            try:
                raise ValueError(line)
            except ValueError:
                log.error("handshake failed", exc_info=True)

        return write

    for header in ("Cookie a=CANARY", "Authorization\x00: CANARY", "sec-websocket-protocol CANARY"):
        message = f"invalid HTTP header line: {header}"
        for format_ in ("json", "text"):
            out = written(fail(message), format=format_)
            assert "CANARY" not in out, out
            assert "ValueError: invalid HTTP header line:" in out


def test_ordinary_values_stay() -> None:
    """Numbers, booleans and plain texts are logged as they are."""
    found = event(
        lambda log: log.info("started", port=8000, ratio=0.5, ok=True, none=None, path="/ws/prices")
    )
    assert found == {
        "event": "started", "port": 8000, "ratio": 0.5, "ok": True, "none": None, "path": "/ws/prices",
        "level": "info", "timestamp": found["timestamp"],
    }  # fmt: skip


hostile = st.text(
    st.characters(codec=None) | st.sampled_from("\r\n\x1b\x00\x07\x7f\x85\x9b\u2028\u2029\u202e\ud800"),
    max_size=30,
)


@pytest.mark.parametrize("format_", ["json", "text"])
@given(text=hostile)
def test_one_event_is_one_line(format_: Format, text: str) -> None:
    """No text makes a second line, a terminal sequence, or bytes that are not UTF-8."""
    for write in (
        lambda log: log.info(text),
        lambda log: log.info("x", value=text, nested={text: [text]}),
        lambda log: log.info("x", **{f"n{text}": 1}),
        lambda log: logging.getLogger("library").warning("%s", text),
    ):
        out = written(write, format=format_)
        assert out.count("\n") == 1
        assert out.endswith("\n")
        assert out[:-1].isprintable()
        assert out.encode()


@pytest.mark.parametrize("format_", ["json", "text"])
def test_a_traceback_can_not_pretend_to_be_a_line(format_: Format) -> None:
    """All lines of a traceback are indented in the text format, so that none looks like an event."""

    def fail(log: Any) -> None:
        try:
            raise ValueError("a\n2026-01-01T00:00:00Z [info     ] all is well\r\x1b[2J\u2028")
        except ValueError:
            log.exception("failed")

    first, *rest = written(fail, format=format_).splitlines()
    assert "failed" in first
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert bool(rest) == (format_ == "text")


def test_libraries_print_no_requests() -> None:
    """At DEBUG the relay logs more, but libraries don't print headers and query strings."""

    def write(log: Any) -> None:
        log.debug("ours")
        for name in (
            "websockets.server",
            "uvicorn.error",
            "uvicorn.access",
            "httpx",
            "httpcore.http11",
            "asyncio",
        ):
            logging.getLogger(name).debug("GET / theirs")
            logging.getLogger(name).info("GET / theirs")

    assert event(write)["event"] == "ours"


def test_clients_can_not_fill_the_log() -> None:
    """uvicorn's warnings about requests are not logged; its errors are."""

    def write(_log: Any) -> None:
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
        logging.getLogger("uvicorn.error").error("a fault of ours")

    assert event(write)["event"] == "a fault of ours"


def test_the_level_is_kept() -> None:
    """Events below the level are not written, neither the relay's nor a library's."""

    def write(log: Any) -> None:
        log.info("less")
        logging.getLogger("library").info("less")
        log.error("more")

    out = written(write, level="error")
    assert "less" not in out
    assert "more" in out


def test_auto_is_json_into_a_pipe() -> None:
    """The format is JSON unless the stream is a terminal."""
    assert json.loads(written(lambda log: log.info("x"), format="auto"))["event"] == "x"
    with pytest.raises(json.JSONDecodeError):
        json.loads(written(lambda log: log.info("x"), format="text"))


def test_no_sentence_of_a_reason_is_redacted() -> None:
    """The log hides what follows the word Bearer: an explanation with it was logged as "a Bearer [hidden]"."""
    assert [text for text in EXPLANATIONS.values() if logs.redact(text) != text] == []
