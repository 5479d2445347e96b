"""The last values that a publisher keeps: their memory is bounded, however many channels it publishes to."""

from relay.client.publishing.last_values import ENTRY_BYTES, LastValues
from relay.client.publishing.messages import EncodedMessage


def message(channel: str, data: bytes = b"1") -> EncodedMessage:
    """Return a message that is ready to be sent."""
    return EncodedMessage(channel=channel, members=data, is_named=False, is_value=True)


def test_many_channels_of_small_values_are_bounded() -> None:
    """The entries count as well: a million names with one digit each would be 350 MB. The oldest are forgotten."""
    kept = LastValues(max_bytes=100 * (ENTRY_BYTES + 10))
    for number in range(10_000):
        kept.keep(message(f"p.{number}"))
    assert 90 <= len(kept) <= 110
    assert [one.channel for one in kept.without(())][-1] == "p.9999"


def test_a_channel_has_one_value() -> None:
    """A newer value replaces the older one, and its memory is given back."""
    kept = LastValues(max_bytes=2 * (ENTRY_BYTES + 100))
    for _ in range(1000):
        kept.keep(message("a", b"1" * 50))
        kept.keep(message("b", b"2" * 50))
    assert len(kept) == 2
