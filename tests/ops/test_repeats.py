"""Calls that come every few seconds: one record, and later how many there were."""

from relay.ops.repeats import MAX_KEYS, PERIOD_S, Repeats


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_is_recorded_and_the_next_ones_are_counted() -> None:
    """The next record comes a period later and stands for all calls since."""
    clock = Clock()
    repeats = Repeats(clock=clock)
    assert repeats.take("ops", "192.0.2.1", "/metrics") == 1
    assert [repeats.take("ops", "192.0.2.1", "/metrics") for _ in range(9)] == [None] * 9
    clock.now = PERIOD_S
    assert repeats.take("ops", "192.0.2.1", "/metrics") == 10
    assert repeats.take("ops", "192.0.2.1", "/metrics") is None


def test_another_operator_address_or_path_is_another_record() -> None:
    """Who looks at what from where is each on record."""
    repeats = Repeats(clock=Clock())
    calls = [
        ("ops", "192.0.2.1", "/a"),
        ("eve", "192.0.2.1", "/a"),
        ("ops", "192.0.2.2", "/a"),
        ("ops", "192.0.2.1", "/b"),
    ]
    assert [repeats.take(*call) for call in calls] == [1, 1, 1, 1]


def test_when_there_is_no_room_each_call_is_recorded() -> None:
    """Bounded memory costs records, never a record too few; room comes back with time."""
    clock = Clock()
    repeats = Repeats(clock=clock)
    for number in range(MAX_KEYS):
        repeats.take("ops", f"address-{number}", "/a")
    assert [repeats.take("ops", "late", "/a") for _ in range(3)] == [1, 1, 1]
    assert repeats.take("ops", "address-0", "/a") is None
    clock.now = PERIOD_S
    assert [repeats.take("ops", "late", "/a") for _ in range(2)] == [1, None]
    assert repeats.take("ops", "address-0", "/a") == 2, "what was counted is not forgotten"
