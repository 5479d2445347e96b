"""Calls that come every few seconds: one record, and later how many there were."""

from relay.ops.repeated_calls import MAX_KEYS, PERIOD_S, RepeatedCalls


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_is_recorded_and_the_next_ones_are_counted() -> None:
    """The next record comes a period later and stands for all calls since."""
    clock = Clock()
    repeats = RepeatedCalls(clock=clock)
    assert repeats.count("ops", "192.0.2.1", "/metrics") == 1
    assert [repeats.count("ops", "192.0.2.1", "/metrics") for _ in range(9)] == [None] * 9
    clock.now = PERIOD_S
    assert repeats.count("ops", "192.0.2.1", "/metrics") == 10
    assert repeats.count("ops", "192.0.2.1", "/metrics") is None


def test_another_operator_address_or_path_is_another_record() -> None:
    """Each combination of operator, address and path has its own record."""
    repeats = RepeatedCalls(clock=Clock())
    calls = [
        ("ops", "192.0.2.1", "/a"),
        ("eve", "192.0.2.1", "/a"),
        ("ops", "192.0.2.2", "/a"),
        ("ops", "192.0.2.1", "/b"),
    ]
    assert [repeats.count(*call) for call in calls] == [1, 1, 1, 1]


def test_when_there_is_no_room_each_call_is_recorded() -> None:
    """A full memory means more records and never a lost one; old entries make room."""
    clock = Clock()
    repeats = RepeatedCalls(clock=clock)
    for number in range(MAX_KEYS):
        repeats.count("ops", f"address-{number}", "/a")
    assert [repeats.count("ops", "late", "/a") for _ in range(3)] == [1, 1, 1]
    assert repeats.count("ops", "address-0", "/a") is None
    clock.now = PERIOD_S
    assert [repeats.count("ops", "late", "/a") for _ in range(2)] == [1, None]
    assert repeats.count("ops", "address-0", "/a") == 2, "what was counted is not forgotten"
