"""The process's own log: structlog for everything, secrets taken out on the way.

Whatever a library logs goes through the same renderer. Two of them would print tokens: websockets logs request
lines and headers at DEBUG, uvicorn's access log has query strings. Both are held back here, and what still
looks like a token, a cookie or a credential is replaced, as a second line of defence: the first is that nobody
logs such a thing.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog

HIDDEN = "[hidden]"

_NAMES = re.compile(
    r"token|cookie|authorization|password|secret|subprotocol|query|credential|api_?key", re.IGNORECASE
)
_TEXTS = (
    re.compile(r"eyJ[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,2}"),  # a JWT, or a part of one
    re.compile(r"(?i)\b(bearer[ .])[^\s,;\"']+"),
    re.compile(r"(?i)\b((?:set-)?cookie|authorization|sec-websocket-protocol)(['\"]?\s*[:=,]\s*)[^\r\n]+"),
    re.compile(r"\?[^\s\"']+"),  # a query string
)


def redact(text: str) -> str:
    """Return `text` without anything that looks like a token, a credential header or a query string."""
    text = _TEXTS[0].sub(HIDDEN, text)
    text = _TEXTS[1].sub(rf"\1{HIDDEN}", text)
    text = _TEXTS[2].sub(rf"\1\2{HIDDEN}", text)
    return _TEXTS[3].sub(f"?{HIDDEN}", text)


def _redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: hide by name, and by look in every text."""
    for name, value in event.items():
        if _NAMES.search(name):
            event[name] = HIDDEN
        elif isinstance(value, str):
            event[name] = redact(value)
        elif value is not None and not isinstance(value, bool | int | float):
            event[name] = redact(repr(value))
    return event


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
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # at DEBUG these print whole requests (lines, headers, frames), at INFO what the relay says itself
    for name in ("websockets", "uvicorn", "httpx", "httpcore", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
