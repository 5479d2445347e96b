"""The states of keys, without a file or a clock: which key signs, and which keys verify."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from relay.core.tokens import SigningKey
from relay.keys.jwks import verify_key
from relay.keys.lifecycle import KeyRecord, KeyState, key_statuses, ring_at

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(4)]


def record(
    number: int, signs_from: float, *, private: bool = True, ended: KeyState | None = None
) -> KeyRecord:
    """Return one of four keys that may sign from some time on."""
    public = verify_key(KEYS[number].public_key())
    return KeyRecord(
        verify=public,
        signing=SigningKey(kid=public.kid, key=KEYS[number]) if private and not ended else None,
        signs_from=signs_from,
        ended=ended,
        ended_at=5.0 if ended else None,
    )


def states(*records: KeyRecord, now: float) -> list[str]:
    """Return the keys' states in the order in which they sign."""
    return [one.state.value for one in key_statuses(records, now=now)]


def test_a_key_s_whole_life() -> None:
    """Published, then signing, then overlapping while the next one signs."""
    old, new = record(0, 100), record(1, 200)
    assert states(old, new, now=150) == ["signing", "next"]
    assert states(old, new, now=200) == ["overlapping", "signing"]
    assert [one.since for one in key_statuses([old, new], now=250)] == [200, 200]
    assert [one.since for one in key_statuses([old, new], now=150)] == [100, 200]


def test_a_waiting_key_is_published_and_does_not_sign() -> None:
    """It verifies from the first moment: that is what it waits for."""
    old, new = record(0, 100), record(1, 200)
    ring = ring_at([new, old], now=150)
    assert ring.signing is not None
    assert ring.signing.kid == old.kid
    assert set(ring.verify) == {old.kid, new.kid}


def test_a_replaced_key_was_replaced_by_the_next_one() -> None:
    """Three keys in a row: each was replaced when its own successor began."""
    found = key_statuses([record(0, 100), record(1, 200), record(2, 300)], now=1000)
    assert [(one.state, one.since) for one in found] == [
        (KeyState.OVERLAPPING, 200),
        (KeyState.OVERLAPPING, 300),
        (KeyState.SIGNING, 300),
    ]


def test_an_ended_key_is_nothing_any_more() -> None:
    """It does not verify; and the one before it does not count as replaced by it."""
    for end in (KeyState.RETIRED, KeyState.REVOKED):
        old, gone = record(0, 100), record(1, 200, ended=end)
        assert states(old, gone, now=300) == ["signing", end.value]
        assert set(ring_at([old, gone], now=300).verify) == {old.kid}


def test_an_issuer_whose_clock_is_behind_signs() -> None:
    """Where every key is still to come, the first of them signs."""
    first, second = record(0, 500), record(1, 600)
    assert states(first, second, now=10) == ["signing", "next"]
    ring = ring_at([first, second], now=10)
    assert ring.signing is not None
    assert ring.signing.kid == first.kid


def test_a_stream_s_keys_have_the_states_that_the_issuer_s_have() -> None:
    """It has public files only, and can say when which one signs elsewhere."""
    keys = [record(0, 100, private=False), record(1, 200, private=False)]
    assert states(*keys, now=150) == ["signing", "next"]
    assert ring_at(keys, now=150).signing is None


def test_a_key_without_its_private_part_never_signs() -> None:
    """Beside keys that can, it only verifies, however new it is."""
    able, newer = record(0, 100), record(1, 200, private=False)
    assert states(able, newer, now=300) == ["signing", "overlapping"]


@given(
    st.lists(
        st.tuples(st.floats(0, 1000), st.booleans(), st.sampled_from([None, KeyState.RETIRED])), max_size=4
    ),
    st.floats(0, 1000),
)
def test_one_key_signs_as_long_as_there_is_one(
    keys: list[tuple[float, bool, KeyState | None]], now: float
) -> None:
    """Whatever the folder holds: at most one signs, one does if any can, and it verifies its own tokens."""
    records = [
        record(number, signs_from, private=private, ended=ended)
        for number, (signs_from, private, ended) in enumerate(keys)
    ]
    ring = ring_at(records, now=now)
    live = [one for one in records if one.ended is None]
    assert set(ring.verify) == {one.kid for one in live}
    assert (ring.signing is None) == (not any(one.signing for one in live))
    assert ring.signing is None or ring.signing.kid in ring.verify
    assert states(*records, now=now).count("signing") == (1 if live else 0)
