"""GET /openapi.json: the publishers' routes as an OpenAPI 3.1 document, for clients in other languages.

The bounds come from the constants that the code checks with, so that document and code can't differ. The messages of
the WebSocket at /v1/ingest are described in words, because OpenAPI has no form for them.
"""

from typing import Any

from relay import __version__
from relay.core.patterns import CHANNEL_REGEX, MAX_CHANNEL_BYTES
from relay.core.publications import MAX_KEY_CHARS, MAX_PUBLICATION_BYTES
from relay.ingest.routes import MAX_BATCH, MAX_BATCH_BYTES
from relay.ingest.subscriber_counts import MAX_CHANNELS
from relay.ingest.values import MAX_NAMES, MAX_VALUES

_WHOLE = {"type": "integer", "minimum": 0, "maximum": (1 << 53) - 1}
_MAYBE = {"type": ["integer", "null"], "minimum": 0, "maximum": (1 << 53) - 1}
_CHANNEL = {"type": "string", "pattern": f"^{CHANNEL_REGEX}$", "maxLength": MAX_CHANNEL_BYTES}
_JSON = "application/json"


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answers(schema: str, *more: int) -> dict[str, Any]:
    """Return the answers of one route: the schema of 200, and its errors. `more` adds to those of every route."""
    texts = {
        400: "The request is malformed; the message says why. Nothing was published.",
        401: "The publisher key is missing or wrong.",
        403: "The key may not publish to a channel, or the request comes from a browser.",
        404: "There is no such path.",
        405: "The route does not have this method.",
        413: "The body is too large.",
        421: "The Host header is not in listen.internal_hosts.",
        426: "The route is a WebSocket: send an upgrade.",
        429: "The publisher's quota is used up for now.",
        503: "The relay can't accept it now.",
    }
    errors = {
        str(status): {"description": texts[status], "content": {_JSON: {"schema": _ref("Error")}}}
        for status in sorted({400, 401, 403, 405, 421, *more})
    }
    for status in ("429", "503"):
        if status in errors:
            errors[status]["headers"] = {
                "Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer", "minimum": 1}}
            }
    if not schema:
        return errors
    return {"200": {"description": "Done.", "content": {_JSON: {"schema": _ref(schema)}}}} | errors


_SCHEMAS = {
    "Value": _object(
        ["channel", "data"],
        channel=_ref("Channel"),
        data={"description": "Any JSON; it reaches subscribers byte for byte."},
        source_ts=_MAYBE | {"description": "When the value was made, in Unix milliseconds."},
        version=_MAYBE
        | {"description": "Grows with each value of the channel. A value that is not newer is dropped."},
        version_epoch=_MAYBE | {"description": "A higher one starts a new sequence of versions."},
        idempotency_key={
            "type": ["string", "null"],
            "pattern": "^[ -~]+$",
            "minLength": 1,
            "maxLength": MAX_KEY_CHARS,
            "description": "Names the message. A later message of the channel with the same key is dropped.",
        },
    )
    | {"description": "A version_epoch needs a version."},
    "SignOfLife": _object(["channel", "alive"], channel=_ref("Channel"), alive={"const": True}),
    "Channel": _CHANNEL,
    "Position": _object(
        ["channel", "epoch", "seq"],
        channel=_ref("Channel"),
        epoch={"type": "string"},
        seq=_WHOLE,
        dropped={"enum": ["stale", "duplicate"]},
    ),
    "Error": _object(
        ["code", "message", "retryable"],
        code={"type": "string"},
        message={"type": "string"},
        retryable={"type": "boolean"},
    ),
    "Batch": _object(
        ["messages"],
        messages={
            "type": "array",
            "description": f"At most {MAX_BATCH}, else 413.",
            "items": {"description": "A Message. A malformed one gets an error in its place."},
        },
    ),
    "Message": {"oneOf": [_ref("Value"), _ref("SignOfLife")]},
    "Results": _object(
        ["results"],
        results={
            "type": "array",
            "description": "One for each message, in order.",
            "items": {"oneOf": [_ref("Position"), _ref("Error")]},
        },
    ),
    "Newest": _object(
        ["channel", "epoch", "seq", "state"],
        channel=_ref("Channel"),
        epoch={"type": "string"},
        seq=_WHOLE | {"description": "0: the channel has no value, and the answer has no data."},
        ts=_WHOLE,
        source_ts=_WHOLE,
        state={"enum": ["live", "stale"]},
        data={"description": "As it was published."},
    ),
    "Values": _object(
        ["ts", "values", "more"],
        ts=_WHOLE | {"description": "The relay's clock in Unix milliseconds."},
        values={"type": "array", "items": _ref("Newest")},
        more={"type": "boolean", "description": "Whether more channels have a value than are shown."},
    ),
    "Subscribers": _object(
        ["subscribers"],
        subscribers={"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
    ),
}

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "scoped-relay: publishing",
        "version": __version__,
        "description": "On the internal listener, for backends. A 2xx means that the message was checked, numbered, "
        "kept as the channel's last value and handed to the fan-out. It does not mean that a subscriber "
        "has received it.",
    },
    "security": [{"publisher": []}],
    "paths": {
        "/v1/publish": {
            "post": {
                "operationId": "publish",
                "summary": f"Publish one message, {MAX_PUBLICATION_BYTES} bytes at most",
                "requestBody": {"required": True, "content": {_JSON: {"schema": _ref("Message")}}},
                "responses": _answers("Position", 413, 429, 503),
            }
        },
        "/v1/publish/batch": {
            "post": {
                "operationId": "publishBatch",
                "summary": f"Publish up to {MAX_BATCH} messages and {MAX_BATCH_BYTES} bytes",
                "description": "Or as application/x-ndjson, a message a line. A bad message does not stop the others.",
                "requestBody": {"required": True, "content": {_JSON: {"schema": _ref("Batch")}}},
                "responses": _answers("Results", 413, 429),
            }
        },
        "/v1/subscribers": {
            "get": {
                "operationId": "countSubscribers",
                "summary": "Count the subscribers of these channels now",
                "parameters": [
                    {
                        "name": "channel",
                        "in": "query",
                        "required": True,
                        "explode": True,
                        "schema": {
                            "type": "array",
                            "items": _ref("Channel"),
                            "minItems": 1,
                            "maxItems": MAX_CHANNELS,
                        },
                    }
                ],
                "responses": _answers("Subscribers"),
            }
        },
        "/v1/channels/{channel}/value": {
            "get": {
                "operationId": "readValue",
                "summary": "Read the newest value of a channel to which the key may publish",
                "parameters": [
                    {"name": "channel", "in": "path", "required": True, "schema": _ref("Channel")},
                ],
                "responses": _answers("Newest", 404),
            }
        },
        "/v1/values": {
            "get": {
                "operationId": "readValues",
                "summary": f"Read the newest values of own channels and patterns, {MAX_VALUES} at most",
                "parameters": [
                    {
                        "name": "channel",
                        "in": "query",
                        "required": True,
                        "explode": True,
                        "schema": {
                            "type": "array",
                            "items": {"type": "string"},
                            "minItems": 1,
                            "maxItems": MAX_NAMES,
                        },
                    }
                ],
                "responses": _answers("Values"),
            }
        },
        "/v1/ingest": {
            "get": {
                "operationId": "ingest",
                "summary": "Upgrade to a WebSocket",
                "description": 'Text frames with one or more messages, one a line, each with type "publish" and an id '
                "from 1 on. Acks with credit answer them.",
                "responses": {"101": {"description": "The WebSocket is open."}} | _answers("", 426, 503),
            }
        },
    },
    "components": {
        "schemas": _SCHEMAS,
        "securitySchemes": {
            "publisher": {
                "type": "http",
                "scheme": "bearer",
                "description": "NAME.SECRET, as `relay keys publisher NAME` prints it.",
            }
        },
    },
}
