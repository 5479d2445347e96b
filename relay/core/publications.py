"""Publications: parsed strictly when a backend sends them, and numbered when they go to the nodes.

The bytes of `data` are spliced unchanged into the frame that every subscriber gets. No decimal is damaged and nothing
is encoded twice. The check here is therefore the only protection of all clients against one bad byte: a browser fails
the whole connection on invalid UTF-8 in a text frame (RFC 6455 §8.1), and again at each reconnect.

The body is first parsed completely and strictly by the standard library. Then msgspec cuts `data` out, because its
`Raw` copies bytes without a check.
"""

from functools import lru_cache
from typing import Any, Literal, TypeVar

import msgspec
from msgspec.structs import astuple

from relay.core import strict_json
from relay.core.errors import MalformedError, Reason
from relay.core.form_errors import in_words
from relay.core.patterns import check_channel

MAX_PUBLICATION_BYTES = 65_536
"""Longest body of one publication. Order-book snapshots reach 64 KB. A tick has 200 bytes."""

MAX_KEY_CHARS = 64
"""Longest idempotency key. A UUID has 36 characters."""

MAX_DEPTH = 64
"""Deepest nesting of a publication, including its own braces. Browsers parse deeper nesting, other clients may not."""

_NEWLINES = bytes.maketrans(b"\r\n", b"  ")


class Publication(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """One numbered value of one channel. `data` is JSON text. `ts` and `source_ts` are Unix milliseconds.

    Within one `epoch`, which is the life of a sequencer, `seq` counts without gaps. Brokers deliver the
    publications of a channel in order and at least once. The hub drops repetitions.

    `entry` is for `relay.core.positions`: no later entry of the engine's log has the publication. 0: there is no log.
    It does not count when two publications are compared.

    This is a struct, and so are the outcomes of `relay.broker`: to make one takes a sixth of the time of a dataclass.
    """

    channel: str
    epoch: str
    seq: int
    ts: int
    data: bytes
    source_ts: int | None = None
    entry: int = 0

    def __eq__(self, other: object) -> bool:
        """Compare everything but the entry."""
        if not isinstance(other, Publication):
            return NotImplemented
        return astuple(self)[:-1] == astuple(other)[:-1]

    def __hash__(self) -> int:
        """Return the hash of the position."""
        return hash((self.channel, self.epoch, self.seq))


class Draft(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A publication as its publisher sends it, without a number.

    `version` grows with each value of the channel, and a higher `version_epoch` starts the versions again. A
    publication that is not newer is dropped. `idempotency_key` names a message. A second message with the same key is
    dropped. With `alive` there is no `data`: it is a sign of life, and the channel's value is unchanged.
    """

    channel: str
    data: msgspec.Raw = msgspec.Raw(b"")
    alive: bool = False
    source_ts: int | None = None
    version: int | None = None
    version_epoch: int | None = None
    idempotency_key: str | None = None


class NumberedDraft(Draft, frozen=True, kw_only=True):
    """A publication on the publisher's socket. The answer has the same `id`."""

    type: Literal["publish"]
    id: int


AnyDraft = TypeVar("AnyDraft", bound=Draft)

_check_name = lru_cache(8192)(check_channel)
"""A market has some thousands of channels, and publishes on each many times. An error is not remembered."""
_decoder = msgspec.json.Decoder(Draft)
_numbered = msgspec.json.Decoder(NumberedDraft)
_NUMBERING = '"type":"publish","id":%d,'
_MOST_NUMBERING = len(_NUMBERING % (1 << 53))


def parse_draft(body: bytes) -> Draft:
    """Check the JSON of one publication and cut its `data` out, byte by byte.

    A line break between JSON tokens becomes a space, because Server-Sent Events and NDJSON end a line there. Inside
    strings JSON allows no line break.

    Raises:
        MalformedError: if the body does not have the documented form. The text is for the publisher.
    """
    _check_size(len(body))
    return _parse(body, _decoder)


def parse_numbered(line: bytes) -> NumberedDraft:
    """Do the same for a message of the publisher's socket. Its `type` and `id` do not count towards the size.

    Raises:
        MalformedError: like `parse_draft`.
    """
    _check_size(len(line) - _MOST_NUMBERING)  # checked before anything is parsed
    draft = _parse(line, _numbered)
    if len(line) > MAX_PUBLICATION_BYTES:
        _check_size(len(line) - len(_NUMBERING % draft.id))
    return draft


def _check_size(size: int) -> None:
    if size > MAX_PUBLICATION_BYTES:
        raise MalformedError(
            f"The publication has more than {MAX_PUBLICATION_BYTES} bytes, which is the limit.",
            reason=Reason.PUBLICATION_TOO_LARGE,
        )


def _parse(body: bytes, decoder: msgspec.json.Decoder[AnyDraft]) -> AnyDraft:
    if not isinstance(_check_strict(body, max_depth=MAX_DEPTH), dict):
        raise _malformed('A publication must be an object: {"channel": …, "data": …}.')
    try:
        draft = decoder.decode(body.translate(_NEWLINES))
    except msgspec.ValidationError as error:
        raise _malformed(f"The publication does not have the required form: {in_words(error)}.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(f"The body is not JSON: {error}.") from None
    _check_name(draft.channel)
    _check_members(draft)
    return draft


def _check_members(draft: Draft) -> None:
    """Check the values of the members. Numbers are limited to whole numbers of JavaScript."""
    if draft.source_ts is not None and not 0 <= draft.source_ts < 1 << 53:
        raise _malformed("source_ts must be Unix time in whole milliseconds.")
    if draft.version is not None and not 0 <= draft.version < 1 << 53:
        raise _malformed("version must be a whole number from 0 to 2^53 - 1.")
    if draft.version_epoch is not None and (draft.version is None or not 0 <= draft.version_epoch < 1 << 53):
        raise _malformed("version_epoch must be a whole number from 0 to 2^53 - 1, and needs a version.")
    key = draft.idempotency_key
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise _malformed(f"idempotency_key must have 1 to {MAX_KEY_CHARS} printable ASCII characters.")
    if not draft.alive:
        if not draft.data:
            raise _malformed(
                'The publication does not have the required form: data or "alive": true is missing.'
            )
    elif draft.data or draft.version is not None or key is not None or draft.source_ts is not None:
        raise _malformed('A sign of life must be {"channel": …, "alive": true} without other members.')


def _malformed(sentence: str) -> MalformedError:
    return MalformedError(sentence, reason=Reason.PUBLICATION_MALFORMED)


def check_data(text: bytes) -> None:
    """Check a value as the relay does when it is published as `data`. Publisher clients call it before they send.

    Raises:
        MalformedError: if the relay would refuse it. The text is for the publisher.
    """
    _check_strict(text, max_depth=MAX_DEPTH - 1, what="The value must be JSON that every parser reads")


def _check_strict(body: bytes, *, max_depth: int, what: str = "The body is not strict JSON") -> Any:
    """Return the value of a JSON text. Refuse what some parser may refuse (`strict_json.parse`), and too much depth."""
    try:
        value = strict_json.parse(body)
    except ValueError as error:
        raise _malformed(f"{what}: {error}.") from None
    # The brackets are counted first, so that ordinary ticks, which have two, are not walked through.
    if body.count(b"[") + body.count(b"{") > max_depth and _deeper_than(value, max_depth):
        raise _malformed(f"{what}: it is nested deeper than {MAX_DEPTH} levels, which is the limit.")
    return value


def _deeper_than(value: object, limit: int) -> bool:
    """Tell whether `value` has objects and lists on more than `limit` levels. `value` itself is the first level."""
    level: list[object] = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not any(isinstance(node, dict | list) for node in level):
            return False
    return True
