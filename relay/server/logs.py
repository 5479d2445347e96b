"""The process's own log: structlog for all lines, those of libraries included.

No module logs a secret. As a second line of defence, values that look like a token, a cookie or a credential are
replaced here. One event is always one line, so that no client can forge a line: JSON escapes line ends, and the text
format escapes them and terminal sequences too.
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
    re.compile(r"eyJ[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,4}"),  # a JWS, a JWE, or a part of one
    re.compile(r"(?i)\b(bearer[ .])[^\s,;\"']+"),
    re.compile(r"(?i)\b((?:set-)?cookie|authorization|sec-websocket-protocol)(['\"]?\s*[:=,]\s*)[^\r\n]+"),
    re.compile(r"\?[^\s\"']+"),  # a query string
)
_BROKEN_HEADER = re.compile(r"(?im)^(\S.*\b(?:cookie|authorization|sec-websocket-protocol)).*$")
"""A header in the text of an exception. It may be one that could not be parsed, without a colon before the value."""
_DEPTH = 6
"""Levels of nested values that are looked through; a deeper value is replaced by its text."""


def redact(text: str) -> str:
    """Return `text` with everything hidden that looks like a token, a credential header or a query string."""
    text = _TEXTS[0].sub(HIDDEN, text)
    text = _TEXTS[1].sub(rf"\1{HIDDEN}", text)
    text = _TEXTS[2].sub(rf"\1\2{HIDDEN}", text)
    return _TEXTS[3].sub(f"?{HIDDEN}", text)


def _redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: hide values by their name, and parts of texts by their form."""
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
    """structlog processor for the text format: escape control characters, and indent the lines of a traceback."""
    traceback = event.pop("exception", None)
    clean: dict[str, Any] = {
        _escape(name): _escape(value) if isinstance(value, str) else value for name, value in event.items()
    }
    if traceback is not None:
        clean["exception"] = "\n".join(f"    {_escape(line)}" for line in str(traceback).split("\n"))
    return clean


def _escape(text: str) -> str:
    """Return `text` with all unprintable characters escaped: controls, line ends, bidi marks, surrogates."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def configure(*, level: str, format: Literal["auto", "text", "json"], stream: TextIO | None = None) -> None:  # noqa: A002  # the setting's name
    """Set up logging for the process. Lines go to `stream`, by default to standard error."""
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
    # At DEBUG these print whole requests (lines, headers, frames) with their tokens. At INFO they repeat the relay.
    for name in ("websockets", "httpx", "httpcore", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # Its warnings are about requests of clients. With a line for each, any client could fill the log.
    # Its access log, which has query strings, is switched off in `relay.web.uvicorn_runner`.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def name_process(pid: int) -> None:
    """Put the process id into each line of the event loop: several processes write to one standard error."""
    structlog.contextvars.bind_contextvars(pid=pid)
