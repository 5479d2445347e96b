"""The process's own log: structlog for everything, secrets taken out on the way.

Whatever a library logs goes through the same renderer. Two of them would print tokens: websockets logs request
lines and headers at DEBUG, uvicorn's access log has query strings. Both are held back here, and what still
looks like a token, a cookie or a credential is replaced, as a second line of defence: the first is that nobody
logs such a thing.

One event is one line that nobody else can begin: JSON escapes what could break it, and for people's eyes the same
is done here, terminal sequences included.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog

HIDDEN = "[hidden]"

_NAMES = re.compile(
    r"token|cookie|authorization|password|secret|subprotocol|query|credential|api_?key", re.IGNORECASE
)
_TEXTS = (
    re.compile(r"eyJ[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,4}"),  # a JWS or JWE, or a part of one
    re.compile(r"(?i)\b(bearer[ .])[^\s,;\"']+"),
    re.compile(r"(?i)\b((?:set-)?cookie|authorization|sec-websocket-protocol)(['\"]?\s*[:=,]\s*)[^\r\n]+"),
    re.compile(r"\?[^\s\"']+"),  # a query string
)
_BROKEN_HEADER = re.compile(r"(?im)^(\S.*\b(?:cookie|authorization|sec-websocket-protocol)).*$")
"""In an exception's own text, which may quote a header that could not be parsed: then nothing separates the value."""
_DEPTH = 6


def redact(text: str) -> str:
    """Return `text` without anything that looks like a token, a credential header or a query string."""
    text = _TEXTS[0].sub(HIDDEN, text)
    text = _TEXTS[1].sub(rf"\1{HIDDEN}", text)
    text = _TEXTS[2].sub(rf"\1\2{HIDDEN}", text)
    return _TEXTS[3].sub(f"?{HIDDEN}", text)


def _redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: hide by name, and by look in every text."""
    for name, value in event.items():
        event[name] = HIDDEN if _NAMES.search(name) else _redact_value(value, _DEPTH)
    if isinstance(text := event.get("exception"), str):
        event["exception"] = _BROKEN_HEADER.sub(rf"\1 {HIDDEN}", text)
    return event


def _redact_value(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact(value)
    if depth and isinstance(value, Mapping):
        return {
            str(name): HIDDEN if _NAMES.search(str(name)) else _redact_value(item, depth - 1)
            for name, item in value.items()
        }
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_redact_value(item, depth - 1) for item in value]
    return redact(repr(value))


def _one_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor for people: escape what moves the cursor; indent a traceback, the one thing of many lines."""
    traceback = event.pop("exception", None)
    clean: dict[str, Any] = {
        _escape(name): _escape(value) if isinstance(value, str) else value for name, value in event.items()
    }
    if traceback is not None:
        clean["exception"] = "\n".join(f"    {_escape(line)}" for line in str(traceback).split("\n"))
    return clean


def _escape(text: str) -> str:
    """Return `text` with what does not print as itself escaped: controls, line ends, bidi marks, surrogates."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def configure(*, level: str, format: Literal["auto", "text", "json"], stream: TextIO | None = None) -> None:  # noqa: A002  # the setting's name
    """Set up logging for the process. `stream` is where lines go, standard error unless told."""
    stream = stream or sys.stderr
    as_text = format == "text" or (format == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact_event,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if as_text
        else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    handler = logging.StreamHandler(stream)
    last = [_one_line, renderer] if as_text else [renderer]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # at DEBUG these print whole requests (lines, headers, frames), at INFO what the relay says itself
    for name in ("websockets", "httpx", "httpcore", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # its warnings are about what clients send: a line for each would let anybody fill the log
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
