"""Publications: what a backend sends in, checked byte by byte, and what goes out to every node.

`data` is spliced verbatim into the text frame that every subscriber gets, so that no decimal is damaged and
nothing is encoded twice. That makes the check here the only thing between one bad byte and every dashboard: a
browser fails the whole connection on invalid UTF-8 in a text frame (RFC 6455 §8.1), again at each reconnect.
So the body is parsed whole and strictly by the standard library first, and only then cut out by msgspec,
whose `Raw` copies bytes unseen.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from relay.core import strict_json
from relay.core.errors import MalformedError, Reason
from relay.core.patterns import check_channel

MAX_PUBLICATION_BYTES = 65_536
"""Longest body of one publication. Order-book snapshots reach 64 KB; a tick has 200 bytes."""

MAX_KEY_CHARS = 64
"""Longest idempotency key: a UUID has 36 characters, two of them with a name fit."""

MAX_DEPTH = 64
"""Deepest nesting of a publication, its own braces counted. Browsers parse far deeper, others need not."""

_NEWLINES = bytes.maketrans(b"\r\n", b"  ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One value on one channel, numbered. `data` is JSON text; `ts` and `source_ts` are Unix milliseconds.

    Within one `epoch`, the sequencer's life, `seq` counts from 1 without gaps. Brokers deliver at least once
    and in order of `seq` per channel; the hub drops what it has seen.
    """

    channel: str
    epoch: str
    seq: int
    ts: int
    data: bytes
    source_ts: int | None = None


class Draft(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A publication as its publisher sends it: not numbered yet.

    `version` grows with each value of the channel, and `version_epoch` begins the versions anew: what is not newer is
    dropped. `idempotency_key` names a message: what has the same once more is dropped. With `alive` there is no
    `data`: the channel's value is unchanged, and its publisher is there.
    """

    channel: str
    data: msgspec.Raw = msgspec.Raw(b"")
    alive: bool = False
    source_ts: int | None = None
    version: int | None = None
    version_epoch: int | None = None
    idempotency_key: str | None = None


class NumberedDraft(Draft, frozen=True, kw_only=True):
    """A publication on the publisher's socket, where an `id` stands for the answer to it."""

    type: Literal["publish"]
    id: int


AnyDraft = TypeVar("AnyDraft", bound=Draft)

_decoder = msgspec.json.Decoder(Draft)
_numbered = msgspec.json.Decoder(NumberedDraft)
_NUMBERING = '"type":"publish","id":%d,'
_MOST_NUMBERING = len(_NUMBERING % (1 << 53))


def parse_draft(body: bytes) -> Draft:
    """Check one publication's JSON and cut its `data` out, byte for byte.

    A line break in the JSON is white space between tokens (inside strings it is not legal), and becomes a
    space: Server-Sent Events and NDJSON end a line there.

    Raises:
        MalformedError: with a sentence for the publisher, if anything about the body is not as documented.
    """
    _check_size(len(body))
    return _parse(body, _decoder)


def parse_numbered(line: bytes) -> NumberedDraft:
    """Do the same for a message of the publisher's socket, whose numbering does not count. Raises as `parse_draft`."""
    _check_size(len(line) - _MOST_NUMBERING)  # before anything is parsed
    draft = _parse(line, _numbered)
    if len(line) > MAX_PUBLICATION_BYTES:
        _check_size(len(line) - len(_NUMBERING % draft.id))
    return draft


def _check_size(size: int) -> None:
    if size > MAX_PUBLICATION_BYTES:
        raise MalformedError(
            f"A publication has at most {MAX_PUBLICATION_BYTES} bytes.", reason=Reason.PUBLICATION_TOO_LARGE
        )


def _parse(body: bytes, decoder: msgspec.json.Decoder[AnyDraft]) -> AnyDraft:
    _check_strict(body)
    try:
        draft = decoder.decode(body.translate(_NEWLINES))
    except msgspec.ValidationError as error:
        raise _malformed(f"The publication is not of its form: {error}.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(f"The body is not JSON: {error}.") from None
    check_channel(draft.channel)
    _check_members(draft)
    return draft


def _check_members(draft: Draft) -> None:
    """Check what the form alone can't tell. Numbers end where JavaScript's whole numbers do."""
    if draft.source_ts is not None and not 0 <= draft.source_ts < 1 << 53:
        raise _malformed("source_ts is Unix time in whole milliseconds.")
    if draft.version is not None and not 0 <= draft.version < 1 << 53:
        raise _malformed("version is a whole number from 0 to 2^53 - 1.")
    if draft.version_epoch is not None and (draft.version is None or not 0 <= draft.version_epoch < 1 << 53):
        raise _malformed("version_epoch is a whole number from 0 to 2^53 - 1, beside a version.")
    key = draft.idempotency_key
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise _malformed(f"idempotency_key is a text of 1 to {MAX_KEY_CHARS} printable ASCII characters.")
    if not draft.alive:
        if not bytes(draft.data):
            raise _malformed('The publication is not of its form: it lacks data, or "alive": true.')
    elif bytes(draft.data) or draft.version is not None or key is not None or draft.source_ts is not None:
        raise _malformed('A sign of life is {"channel": …, "alive": true} and nothing else.')


def _malformed(sentence: str) -> MalformedError:
    return MalformedError(sentence, reason=Reason.PUBLICATION_MALFORMED)


def _check_strict(body: bytes) -> None:
    """Refuse whatever a strict parser anywhere might refuse: encoding, syntax, duplicate names, depth."""
    try:
        value = strict_json.parse(body)
    except ValueError as error:
        raise _malformed(f"The body is not strict JSON: {error}.") from None
    if not isinstance(value, dict):
        raise _malformed('A publication is an object: {"channel": …, "data": …}.')
    # counting brackets first keeps the walk away from ordinary ticks, which have two
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise _malformed(f"The body is nested deeper than {MAX_DEPTH}.")


def _deeper_than(value: object, limit: int) -> bool:
    """Tell whether `value`, itself the first level, holds objects and lists on more than `limit` levels."""
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
