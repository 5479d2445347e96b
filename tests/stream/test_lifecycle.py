"""The table of a connection's life: each pair of phase and event, the timers, and what can't be undone."""

import itertools

import pytest

from relay.stream.lifecycle import (
    GONE,
    LIVE,
    READABLE,
    TIMERS,
    TRANSITIONS,
    UNANSWERED,
    Event,
    ImpossibleEventError,
    Phase,
    Timer,
    next_phase,
)

EXPECTED = """
                SECURED  FIRST_BYTES READ      HANDSHAKE_ACCEPTED HANDSHAKE_REFUSED HANDED_OVER TOKEN_ACCEPTED CLOSE_WRITTEN ABORTED   CONNECTION_LOST HANDLER_ENDED
SECURING        ACCEPTED -           -         -                  -                 -           -              -             UNHANDLED FINISHED        -
ACCEPTED        -        QUEUED      -         -                  CLOSING           -           -              -             CLOSING   LOST            UNHANDLED
QUEUED          -        -           HANDSHAKE -                  CLOSING           -           -              -             CLOSING   LOST            UNHANDLED
HANDSHAKE       -        -           -         UNAUTHENTICATED    CLOSING           LOST        -              -             CLOSING   LOST            UNHANDLED
UNAUTHENTICATED -        -           -         -                  -                 -           OPEN           CLOSING       CLOSING   LOST            UNHANDLED
OPEN            -        -           -         -                  -                 -           -              CLOSING       CLOSING   LOST            UNHANDLED
CLOSING         -        -           -         -                  -                 -           CLOSING        -             CLOSING   LOST            UNHANDLED
LOST            -        -           -         -                  -                 -           LOST           -             LOST      -               FINISHED
UNHANDLED       -        -           -         -                  -                 -           -              -             UNHANDLED FINISHED        -
FINISHED        -        -           -         -                  -                 -           -              -             FINISHED  -               -
"""  # noqa: E501  # a table
"""From a phase (row) and an event (column) to the next phase; "-" is impossible."""

_EVENTS, *_ROWS = [line.split() for line in EXPECTED.strip().splitlines()]
PAIRS = [
    (Phase[phase], Event[event], None if then == "-" else Phase[then])
    for phase, *row in _ROWS
    for event, then in zip(_EVENTS, row, strict=True)
]


def reachable(start: Phase) -> set[Phase]:
    """Return the phases that can follow `start`, itself included."""
    found = {start}
    while more := {then for (phase, _), then in TRANSITIONS.items() if phase in found} - found:
        found |= more
    return found


def test_the_expected_table_has_each_pair_once() -> None:
    """No phase and no event is forgotten in the table above."""
    assert {(phase, event) for phase, event, _ in PAIRS} == set(itertools.product(Phase, Event))
    assert len(PAIRS) == len(Phase) * len(Event)


@pytest.mark.parametrize(("phase", "event", "then"), PAIRS, ids=lambda value: value.name if value else "none")
def test_each_pair_has_a_defined_answer(phase: Phase, event: Event, then: Phase | None) -> None:
    """A pair of phase and event leads to the expected phase, or is refused as impossible."""
    if then is not None:
        assert next_phase(phase, event) is then
        return
    with pytest.raises(ImpossibleEventError, match=f"{event.name} can't happen .* {phase.name}") as caught:
        next_phase(phase, event)
    assert (caught.value.phase, caught.value.event) == (phase, event)


def test_each_phase_is_reached_and_each_can_finish() -> None:
    """From SECURING every phase can be reached, and from every phase FINISHED."""
    assert reachable(Phase.SECURING) == set(Phase)
    assert all(Phase.FINISHED in reachable(phase) for phase in Phase)


def test_nothing_is_written_after_a_close_frame() -> None:
    """No way leads from a close frame or an abort back to a phase in which anything is written."""
    for event in (Event.CLOSE_WRITTEN, Event.ABORTED, Event.HANDSHAKE_REFUSED):
        for (_, happened), then in TRANSITIONS.items():
            if happened is event:
                assert reachable(then).isdisjoint(LIVE)


def test_a_close_frame_is_written_once_and_only_to_an_open_websocket() -> None:
    """CLOSE_WRITTEN is possible in the live phases alone, and leaves them."""
    assert {phase for phase, event in TRANSITIONS if event is Event.CLOSE_WRITTEN} == LIVE
    assert all(TRANSITIONS[phase, Event.CLOSE_WRITTEN] is Phase.CLOSING for phase in LIVE)


def test_the_hub_writes_only_after_the_token() -> None:
    """TOKEN_ACCEPTED is the one event that leads to OPEN, and the handshake's answer the one way to the token."""
    to_open = {(phase, event) for (phase, event), then in TRANSITIONS.items() if then is Phase.OPEN}
    assert to_open == {(Phase.UNAUTHENTICATED, Event.TOKEN_ACCEPTED)}
    to_token = {
        (phase, event) for (phase, event), then in TRANSITIONS.items() if then is Phase.UNAUTHENTICATED
    }
    assert to_token == {(Phase.HANDSHAKE, Event.HANDSHAKE_ACCEPTED)}


def test_each_phase_that_waits_for_the_client_has_a_timer() -> None:
    """LOST alone has none: its TCP connection is gone, and only the relay's own handler still runs."""
    assert set(TIMERS) == set(Phase)
    assert {phase for phase, timer in TIMERS.items() if timer is None} == {Phase.LOST}
    assert {timer for timer in TIMERS.values() if timer} == set(Timer)


def test_the_tcp_connection_can_go_in_each_phase() -> None:
    """CONNECTION_LOST happens once: in each phase with a TCP connection, and it leads to those without one."""
    possible = {phase for phase, event in TRANSITIONS if event is Event.CONNECTION_LOST}
    assert possible == set(Phase) - GONE
    assert all(TRANSITIONS[phase, Event.CONNECTION_LOST] in GONE for phase in possible)
    assert all(reachable(phase) <= GONE for phase in GONE)


def test_the_groups_of_phases_do_not_overlap() -> None:
    """A phase is unanswered, live, or over; what is readable is not gone."""
    assert UNANSWERED.isdisjoint(LIVE)
    assert READABLE == UNANSWERED | LIVE
    assert READABLE.isdisjoint(GONE)
