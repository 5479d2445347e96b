"""The fast check of plain records against the check of each line: the same verdict, whatever was done to the log."""

import asyncio
import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.audit import verify as verification
from relay.audit.chain import Link, Sealed, unseal
from relay.audit.verdict import Verdict
from relay.audit.verify import Part, verify_files, verify_last_parts, verify_parts
from relay.core.errors import MalformedError
from relay.core.jws import VerifyKey
from tests.support.audit_logs import rewritten, with_new_hashes
from tests.support.audit_signing import KEYS, write

HASH = re.compile(rb'"chain":\{"hash":"([0-9a-f]{64})",')
PREV = re.compile(rb'"prev":"([0-9a-f]{64})"')


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The lines of a signed log with an unclean end and two restarts."""
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    asyncio.run(write(path, 70))
    with path.open("rb+") as file:
        file.truncate(file.seek(0, 2) - 200)  # the closing checkpoint is torn
    asyncio.run(write(path, 30))
    return path.read_bytes().splitlines(keepends=True)


def verdicts(
    lines: Sequence[bytes], head: Link | None = None, *, signed: bool = True
) -> tuple[Verdict, Verdict]:
    """Return the verdict as it is given, and with each line read by itself. Of two processes it must be the same."""
    keys = KEYS if signed else None
    fast = verify_files([lines], head=head, keys=keys)
    cuts = [number for number, line in enumerate(lines, 1) if is_checkpoint(line)]
    for ours in range(len(cuts) + 1):
        assert by_two(lines, cuts, ours, head, keys) == fast
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "parsed_lines", lambda _lines: None)
        return fast, verify_files([lines], head=head, keys=keys)


def is_checkpoint(line: bytes) -> bool:
    """Tell whether a line can stand between two parts."""
    if b'"action":"audit.checkpoint"' not in line:
        return False
    try:
        sealed = unseal(line)
    except MalformedError:
        return False
    return line.endswith(b"\n") and sealed.intact and sealed.checkpoint is not None


def by_two(
    lines: Sequence[bytes],
    cuts: Sequence[int],
    ours: int,
    head: Link | None,
    keys: Mapping[str, VerifyKey] | None,
) -> Verdict:
    """Return the verdict of two processes: parts begin after these lines, and the first one takes `ours` of them."""

    def parts() -> list[Part]:
        ends = [0, *cuts, len(lines)]
        return [
            Part(unseal(lines[begin - 1]) if begin else None, [(0, iter(lines[begin:end]))])
            for begin, end in pairwise(ends)
        ]

    untaken = iter([True] * ours)
    taken_there = iter([True] * (len(cuts) - ours))
    return verify_parts(
        parts(),
        is_ours=lambda: next(untaken, False),
        others=lambda: verify_last_parts(
            parts(), is_ours=lambda: next(taken_there, False), head=head, keys=keys
        ),
        head=head,
        keys=keys,
    )


def hashed(line: bytes) -> bytes:
    """Return a line with the hash that fits its bytes, if it has a place for one."""
    found, prev = HASH.search(line), PREV.search(line)
    if found is None or prev is None:
        return line
    body = line[: found.start(1) - len('"hash":"')] + line[found.end() :].removesuffix(b"\n")
    digest = hashlib.sha256(prev[1] + body).hexdigest().encode()
    return line[: found.start(1)] + digest + line[found.end(1) :]


def chained(lines: Sequence[bytes], start: int) -> list[bytes]:
    """Return the lines with all hashes from `start` on computed again over their bytes."""
    done = list(lines[: max(0, start)])
    for line in lines[max(0, start) :]:
        before = HASH.search(done[-1]) if done else None
        if before is not None and PREV.search(line):
            line = PREV.sub(b'"prev":"%b"' % before[1], line, count=1)
        done.append(hashed(line))
    return done


def repeat_member(text: bytes) -> Callable[[bytes, random.Random], bytes]:
    """Return an edit that adds a member a second time: at the beginning, inside `relay`, or at the end."""

    def edit(line: bytes, dice: random.Random) -> bytes:
        places = [1, line.find(b'"relay":{') + len(b'"relay":{'), len(line) - 2]
        at = dice.choice(places)
        if at == len(line) - 2:
            return line[:at] + b"," + text + line[at:]
        return line[:at] + text + b"," + line[at:]

    return edit


def flip(line: bytes, dice: random.Random) -> bytes:
    """Change one byte."""
    at = dice.randrange(len(line))
    return line[:at] + bytes([line[at] ^ (1 << dice.randrange(8))]) + line[at + 1 :]


def insert(line: bytes, dice: random.Random) -> bytes:
    """Insert a text that a parser and a search could read differently."""
    texts = [
        b"\n",
        b" ",
        b"\r",
        b"\t",
        b"{}",
        b"}\n{",
        b'"',
        b"\\",
        b'"chain":{"hash":"',
        b",",
        b"\xff",
        b"\x00",
        b'\\"chain":{"hash":"',
    ]
    at = dice.choice([dice.randrange(len(line)), 0, len(line) - 1, line.find(b'"seq":') + 6])
    return line[:at] + dice.choice(texts) + line[at:]


def as_float(line: bytes, dice: random.Random) -> bytes:
    """Write the number of the record in another way."""
    return re.sub(
        rb'"seq":(\d+)', dice.choice([rb'"seq":\1.0', rb'"seq":0\1', rb'"seq":-\1', rb'"seq":\g<1>e0']), line
    )


def escaped(line: bytes, dice: random.Random) -> bytes:
    """Write one letter of a member's name as an escape."""
    return line.replace(
        *dice.choice(
            [(b'"prev"', b'"pr\\u0065v"'), (b'"action"', b'"acti\\u006fn"'), (b'"chain"', b'"ch\\u0061in"')]
        )
    )


EDITS = [
    flip,
    insert,
    as_float,
    escaped,
    repeat_member(b'"relay":{}'),
    repeat_member(b'"event":{"action":"audit.gap"}'),
    repeat_member(b'"event":{"action":"audit.checkpoint"}'),
    repeat_member(b'"chain":{"hash":"%b","prev":"%b","seq":7,"writer":"w"}' % (b"0" * 64, b"1" * 64)),
    repeat_member(b'"@timestamp":"2020"'),
    lambda line, _dice: b"{" + line,
    lambda line, _dice: line.removesuffix(b"\n"),
    lambda line, _dice: line.removesuffix(b"\n") + line,
    lambda line, dice: line.replace(b"user-", dice.choice([b"user+", b"us\\u0065r-", "usér-".encode()])),
    lambda line, _dice: re.sub(rb'"writer":"[^"]*"', b'"writer":"other"', line),
]


@settings(max_examples=400, deadline=None)
@given(
    edit=st.sampled_from(EDITS),
    rehash=st.sampled_from(["no", "line", "rest"]),
    dice=st.randoms(use_true_random=False),
    signed=st.booleans(),
    has_head=st.booleans(),
)
def test_an_edited_line_gets_the_same_verdict(
    log: list[bytes],
    edit: Callable[[bytes, random.Random], bytes],
    rehash: str,
    dice: random.Random,
    *,
    signed: bool,
    has_head: bool,
) -> None:
    """One line is changed; with its hash, or all hashes from there on, computed again or not."""
    number = dice.randrange(len(log))
    lines = [*log[:number], edit(log[number], dice), *log[number + 1 :]]
    if rehash == "line":
        lines[number] = hashed(lines[number])
    elif rehash == "rest":
        lines = chained(lines, number)
    lines = b"".join(lines).splitlines(keepends=True)
    head = unseal(log[dice.choice([5, len(log) - 1])]).link if has_head else None
    fast, slow = verdicts(lines, head, signed=signed)
    assert fast == slow


@settings(max_examples=150, deadline=None)
@given(dice=st.randoms(use_true_random=False), signed=st.booleans())
def test_moved_lines_get_the_same_verdict(log: list[bytes], dice: random.Random, *, signed: bool) -> None:
    """Lines are deleted, swapped, doubled, replaced by those of a forged log, or the log is cut."""
    one, other = sorted(dice.sample(range(len(log)), 2))
    forged = rewritten(log, one) if dice.random() < 0.2 and all(map(_parses, log)) else list(log)
    lines = dice.choice(
        [
            [*log[:one], *log[other:]],
            [*log[:one], log[other], *log[one + 1 : other], log[one], *log[other + 1 :]],
            [*log[: one + 1], *log[one:]],
            [*log[:other], log[one], *log[other:]],
            log[:one],
            log[one:],
            [*log[:other], with_new_hashes(json.loads(log[0])), *log[other:]],
            forged,
        ]
    )
    fast, slow = verdicts(lines, signed=signed)
    assert fast == slow


def _parses(line: bytes) -> bool:
    return line.endswith(b"}\n")


def test_a_whole_log_is_checked_without_reading_each_line_by_itself(
    log: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only checkpoints, gaps, and the lines next to them are."""
    read: list[bytes] = []

    def reading(line: bytes) -> Sealed:
        read.append(line)
        return unseal(line)

    monkeypatch.setattr(verification, "unseal", reading)
    assert verify_files([log], keys=KEYS).ok
    assert len(read) < len(log) / 5


def test_the_log_of_this_test_is_whole(log: list[bytes]) -> None:
    """Two ends without closing would hide what the edits do."""
    fast, slow = verdicts(log, unseal(log[-1]).link)
    assert fast == slow
    assert (fast.ok, fast.unclean, fast.torn, fast.proven) == (True, 1, 1, fast.records)
