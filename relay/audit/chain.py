"""The hash chain of the audit log: how a record becomes a line, and how a line is read back. Pure.

Each record holds the hash of the record before it. Nobody can therefore change, remove, insert or move a line of a
log without changing every line after it. These rules are enough to check a log without this package:

1. A line is a record in canonical form and a newline. The canonical form is what Python's
   `json.dumps(record, sort_keys=True, separators=(",", ":"))` writes: members sorted by code point, no
   white space, integers in decimal, floats as the shortest text that reads back the same, neither NaN nor
   infinity. Strings are ASCII: `"`, `\\` and all outside U+0020 to U+007E is escaped (\\b \\f \\n \\r \\t,
   else \\uXXXX in lower case). RFC 8785 differs in the last three points. It would leave U+2028, U+009B and
   bidirectional marks as they are. In a program that shows the log, those break lines, control the terminal or
   reverse text.
2. `relay.chain` is `{hash, prev, seq, writer}`. `writer` is the random name of the chain. `seq` counts from 1 and
   is also `event.sequence`. `prev` is the hash of the record before, and 64 zeros in the first record.
3. `hash` is the SHA-256, in lower-case hex, of `prev` (its 64 characters) and the canonical record without
   `relay.chain.hash`. So the hash of a line can be checked on its bytes: cut out `"hash":"…",`.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from relay.audit.checkpoints import CheckpointDetails
from relay.core.errors import MalformedError
from relay.core.events import MAX_DEPTH, MAX_LIST, MAX_TEXT, Action, clip

GENESIS = "0" * 64
"""The `prev` of the first record."""

MAX_LINE = 1 << 20
"""Bytes of the longest line. An event with both its lists full of escaped characters makes about 400 KB."""

_HASH_AT = b'"chain":{"hash":"'
# no client's text can match this, because a quote inside a string is always escaped
_CHAIN_AT = b'"chain":{'
_AFTER_HASH = len(_HASH_AT) - len(_CHAIN_AT) + 66
"""Bytes from the end of `"chain":{` to what follows the hash."""
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode

Writer = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Count = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True, slots=True)
class Link:
    """The link of a record in a chain: its writer, its number and its hash.

    The last link of a log is its head. A head as text, `writer:seq:hash`, can be kept in another place.
    """

    writer: str
    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.writer}:{self.seq}:{self.hash}"

    @classmethod
    def before_first(cls, writer: str) -> "Link":
        """Return the link that the first record of a new chain follows."""
        return cls(writer, 0, GENESIS)

    @classmethod
    def parse(cls, text: str) -> "Link":
        """Read `writer:seq:hash`.

        Raises:
            MalformedError: if `text` does not have that form.
        """
        match = re.fullmatch(r"([A-Za-z0-9._-]{1,64}):([1-9][0-9]{0,17}):([0-9a-f]{64})", text)
        if match is None:
            raise MalformedError(
                "A head has the form WRITER:SEQ:HASH, with 64 lower-case hex digits for HASH."
            )
        return cls(match[1], int(match[2]), match[3])


class Unreadable(msgspec.Struct, frozen=True):
    """Bytes between two records that are no record: their number, and their SHA-256 in hex."""

    bytes: Count
    sha256: Digest


class GapDetails(msgspec.Struct, frozen=True):
    """The details of an `audit.gap` record: lost events by action, and the torn bytes before the record."""

    lost: dict[str, int] = {}
    unreadable: Unreadable | None = None
    unclean_end: bool = False
    """The process before this one did not close the log. Events that it had not written yet are not counted."""
    cut: Count = 0
    """Bytes that another program cut off the file while it was being written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A line that was read. `intact`: its hash fits its content. If it is False, nothing in the line can be trusted."""

    link: Link
    prev: str
    intact: bool
    gap: GapDetails | None
    checkpoint: CheckpointDetails | None
    at: str
    """The record's `@timestamp`."""

    def follows(self, before: Link) -> bool:
        """Return whether this is the next record after `before`."""
        link = self.link
        return self.prev == before.hash and link.seq == before.seq + 1 and link.writer == before.writer


class _Chain(msgspec.Struct, frozen=True):
    hash: Digest
    prev: Digest
    seq: Count
    writer: Writer


class _Relay(msgspec.Struct, frozen=True):
    chain: _Chain


class _Event(msgspec.Struct, frozen=True, gc=False):
    action: str


class _Record(msgspec.Struct, frozen=True, rename={"at": "@timestamp"}):
    at: str
    event: _Event
    relay: _Relay


class PlainChain(msgspec.Struct, frozen=True, gc=False):
    """The link in a line that nothing was checked of yet."""

    hash: str
    prev: str
    seq: int
    writer: str


class _PlainRelay(msgspec.Struct, frozen=True, gc=False):
    chain: PlainChain


class PlainRecord(msgspec.Struct, frozen=True, gc=False, rename={"at": "@timestamp"}):
    """What `unseal` takes from a line, without the forms of its texts."""

    at: str
    event: _Event
    relay: _PlainRelay


class _GapRecord(msgspec.Struct, frozen=True):
    relay: GapDetails


class _CheckpointRelay(msgspec.Struct, frozen=True):
    checkpoint: CheckpointDetails


class _CheckpointRecord(msgspec.Struct, frozen=True):
    relay: _CheckpointRelay


def _plain_type(levels: int) -> Any:
    """Return the type of values that `clip` does not change and that have no float or None, `levels` deep."""
    text, few = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)], msgspec.Meta(max_length=MAX_LIST)
    if not levels:
        return text | int | bool
    inner = _plain_type(levels - 1)
    return text | int | bool | Annotated[list[inner], few] | Annotated[dict[text, inner], few]  # type: ignore[valid-type]  # made at run time


_Plain = msgspec.defstruct("_Plain", [("record", _plain_type(MAX_DEPTH))])
"""The type of records that `_plain` encodes. The same check written in Python takes three times as long."""

_plain_encoder = msgspec.json.Encoder(order="sorted")
_record_decoder = msgspec.json.Decoder(_Record)
_plain_decoder = msgspec.json.Decoder(PlainRecord)
_gap_decoder = msgspec.json.Decoder(_GapRecord)
_checkpoint_decoder = msgspec.json.Decoder(_CheckpointRecord)


def canonical(record: Mapping[str, Any]) -> bytes:
    """Return `record` in canonical form (rule 1).

    Raises:
        ValueError: if it contains NaN, an infinity or itself.
        TypeError: if it contains a value that JSON does not have.
        RecursionError: if it is nested too deep.
    """
    return _encode(record).encode("ascii")


def _plain(record: Mapping[str, Any]) -> bytes | None:
    """Return `record` in canonical form if msgspec writes that form and nothing in it is too long, else None.

    This is so for nearly all records, and it takes a quarter of the time of `clip` and `canonical`. The two encoders
    differ in escapes, in floats and in NaN (msgspec writes null). Records with any of these return None.
    """
    try:
        msgspec.convert({"record": record}, _Plain)
        form = _plain_encoder.encode(record)
    except (msgspec.ValidationError, UnicodeError, OverflowError):  # half a character; more than 64 bits
        return None
    return form if form.isascii() and not (b"\\" in form or b"\x7f" in form) else None


def _linked(record: Mapping[str, Any], after: Link) -> dict[str, Any]:
    seq = after.seq + 1
    chain = {"prev": after.hash, "seq": seq, "writer": after.writer}
    return {
        **record,
        "event": {**record["event"], "sequence": seq},
        "relay": {**record.get("relay", {}), "chain": chain},
    }


def seal(record: Mapping[str, Any], after: Link) -> tuple[bytes, Link]:
    """Return `record`, cut to size, as the line that follows `after`, without its newline, and its own link.

    Raises:
        ValueError: if the line is still longer than `MAX_LINE`.
    """
    seq = after.seq + 1
    body = _plain(_linked(record, after)) or canonical(_linked(clip(record), after))
    digest = _digest(after.hash, body)
    # encoding a second time would cost most, so the hash is inserted where sorting puts it
    chain = b'"chain":{"prev":"%b","seq":%d,"writer":' % (after.hash.encode(), seq)
    line = body.replace(chain, b'%b%b",%b' % (_HASH_AT, digest.encode(), chain.removeprefix(_CHAIN_AT)), 1)
    if len(line) >= MAX_LINE:
        raise ValueError(f"The record is longer than {MAX_LINE} bytes.")
    return line, Link(after.writer, seq, digest)


def unseal(line: bytes) -> Sealed:
    """Read one line, with or without its newline.

    Raises:
        MalformedError: if it is no record of an audit log.
    """
    line = line.removesuffix(b"\n")
    if len(line) >= MAX_LINE or not line.isascii():
        raise MalformedError("The line is too long or not ASCII.")
    try:
        record = _record_decoder.decode(line)
    except (msgspec.DecodeError, RecursionError):
        raise MalformedError("The line is not JSON with the members of a record.") from None
    chain = record.relay.chain
    before, _, after = line.partition(_HASH_AT)
    body = before + _CHAIN_AT + after[len(chain.hash) + len('",') :]
    intact = after.startswith(b'%b",' % chain.hash.encode()) and _digest(chain.prev, body) == chain.hash
    action = record.event.action if intact else ""
    return Sealed(
        link=Link(chain.writer, chain.seq, chain.hash),
        prev=chain.prev,
        intact=intact,
        gap=_gap_details(line) if action == Action.AUDIT_GAP else None,
        checkpoint=_checkpoint_details(line) if action == Action.AUDIT_CHECKPOINT else None,
        at=record.at,
    )


def parsed_lines(lines: Sequence[bytes]) -> list[PlainRecord] | None:
    """Parse lines in one call, which costs a third of a call for each. Return None if they have to be read one by one.

    Each line is one JSON value then: a value can't go on after the end of its line, because nothing valid has `{` after
    `}` and a newline, and a second value in a line would make more values than lines.
    """
    data = b"".join(lines)
    if (
        len(data) >= MAX_LINE
        or not data.isascii()
        or not all([line.startswith(b"{") and line.endswith(b"}\n") for line in lines])  # noqa: C419  # a list is faster
    ):
        return None
    try:
        records = _plain_decoder.decode_lines(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return records if len(records) == len(lines) else None


def is_intact(line: bytes, chain: PlainChain) -> bool:
    """Tell whether a line, with its newline, fits the hash in it. `chain` is what was parsed of it."""
    at = line.find(_HASH_AT) + len(_CHAIN_AT)
    after = at + _AFTER_HASH
    return (
        line[after - 66 : after] == b'%b",' % chain.hash.encode()
        and hashlib.sha256(b"".join((chain.prev.encode(), line[:at], line[after:-1]))).hexdigest()
        == chain.hash
    )


def _digest(prev: str, body: bytes) -> str:
    return hashlib.sha256(prev.encode() + body).hexdigest()


def _gap_details(line: bytes) -> GapDetails:
    try:
        return _gap_decoder.decode(line).relay
    except msgspec.DecodeError:
        return GapDetails()


def _checkpoint_details(line: bytes) -> CheckpointDetails | None:
    try:
        return _checkpoint_decoder.decode(line).relay.checkpoint
    except msgspec.DecodeError:
        return None
