"""Group commit: order, outcomes, cancellation, bounds, and an end that loses nothing."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from relay.group_commit import MAX_BATCH, GroupCommit


class Recorder:
    """A commit that records its batches, and waits before each until the test releases it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def __call__(self, items: Sequence[int]) -> list[int]:
        """Give each item times ten."""
        self.gate.wait()
        self.batches.append(list(items))
        self.threads.add(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        return [item * 10 for item in items]


@pytest.fixture
def recorder() -> Recorder:
    """The commit under the writer."""
    return Recorder()


@pytest.fixture
async def writer(recorder: Recorder) -> AsyncIterator[GroupCommit[int, int]]:
    """A writer with room for 1000 items."""
    writer = GroupCommit(recorder, name="test-writer", answer_within_s=60, max_waiting=1000)
    yield writer
    recorder.gate.set()
    await writer.aclose()


async def test_each_caller_gets_its_own_result(writer: GroupCommit[int, int], recorder: Recorder) -> None:
    """Calls of one turn share a commit, on the writer's own thread, and results go back in order."""
    results = await asyncio.gather(*(writer.submit(item) for item in range(100)))
    assert results == [item * 10 for item in range(100)]
    assert recorder.batches == [list(range(100))]
    assert all(name.startswith("test-writer") for name in recorder.threads)


async def test_what_arrives_during_a_commit_is_the_next_batch(
    writer: GroupCommit[int, int], recorder: Recorder
) -> None:
    """A single call does not wait for others, and others do not wait for each other."""
    recorder.gate.clear()
    first = writer.submit(1)
    await asyncio.sleep(0)  # the writer takes the first batch
    rest = [writer.submit(item) for item in (2, 3, 4)]
    assert writer.waiting == 4
    recorder.gate.set()
    assert await asyncio.gather(first, *rest) == [10, 20, 30, 40]
    assert recorder.batches == [[1], [2, 3, 4]]
    assert writer.waiting == 0


async def test_under_load_a_batch_gathers_what_each_turn_brings(
    writer: GroupCommit[int, int], recorder: Recorder
) -> None:
    """After a commit, items of several turns in a row share one batch, which begins when a turn brings none."""
    recorder.gate.clear()
    first = writer.submit(0)
    await asyncio.sleep(0)  # the writer takes the first batch
    later = [writer.submit(1)]
    first.add_done_callback(lambda _first: later.append(writer.submit(2)))
    recorder.gate.set()
    await first
    await asyncio.sleep(0)  # one turn after its answer
    later.append(writer.submit(3))
    assert await asyncio.gather(*later) == [10, 20, 30]
    assert recorder.batches == [[0], [1, 2, 3]]


async def test_a_batch_gathers_for_a_bounded_time(
    writer: GroupCommit[int, int], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time a batch begins, although each turn brings another item."""
    monkeypatch.setattr("relay.group_commit.GATHER_S", 0.0)
    futures = [writer.submit(item) for item in range(3)]
    while not futures[0].done():
        if len(futures) < 900:
            futures.append(writer.submit(len(futures)))
        await asyncio.sleep(0)
    await asyncio.gather(*futures)
    assert recorder.batches[0] == [0, 1, 2, 3]


async def test_what_may_wait_goes_with_what_may_not(
    writer: GroupCommit[int, int], recorder: Recorder
) -> None:
    """An item that has time shares the commit of one that has none, and keeps its place before it."""
    for item in (1, 2):
        writer.post(item, within_s=60)
    await asyncio.sleep(0)
    assert recorder.batches == []
    assert writer.waiting == 2
    assert await writer.submit(3) == 30
    assert recorder.batches == [[1, 2, 3]]


async def test_what_may_wait_waits_no_longer() -> None:
    """Nothing else need come; and the end of the writer commits it too."""
    loop, committed = asyncio.get_running_loop(), asyncio.Event()
    batches: list[list[int]] = []

    def commit(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        loop.call_soon_threadsafe(committed.set)
        return list(items)

    writer: GroupCommit[int, int] = GroupCommit(commit, name="test-writer", answer_within_s=60)
    writer.post(1, within_s=0.001)
    async with asyncio.timeout(10):
        await committed.wait()
    writer.post(2, within_s=60)
    await writer.aclose()
    assert batches == [[1], [2]]
    with pytest.raises(asyncio.QueueFull):
        writer.post(3, within_s=60)


async def test_batches_are_bounded_and_in_order(writer: GroupCommit[int, int], recorder: Recorder) -> None:
    """More than one batch's worth is committed in the order it came, no batch longer than the bound."""
    count = MAX_BATCH + 300
    await asyncio.gather(*(writer.submit(item) for item in range(count)))
    assert [item for batch in recorder.batches for item in batch] == list(range(count))
    assert max(map(len, recorder.batches)) <= MAX_BATCH


async def test_an_error_reaches_every_caller_of_its_batch_and_no_other(
    writer: GroupCommit[int, int], recorder: Recorder
) -> None:
    """A failed commit fails its calls. The next batch is tried."""
    recorder.error = OSError("disk full")
    outcomes = await asyncio.gather(*(writer.submit(item) for item in range(5)), return_exceptions=True)
    assert [repr(outcome) for outcome in outcomes] == ["OSError('disk full')"] * 5
    recorder.error = None
    assert await writer.submit(6) == 60


async def test_an_error_that_nobody_waits_for_is_no_warning(
    writer: GroupCommit[int, int], recorder: Recorder
) -> None:
    """A future that was dropped does not make asyncio complain later (warnings are errors here)."""
    recorder.error = OSError("disk full")
    writer.submit(1)
    with pytest.raises(OSError, match="disk full"):
        await writer.submit(2)


async def test_a_commit_with_too_few_results_fails_its_callers() -> None:
    """If the commit itself is faulty, its callers get an error."""
    writer: GroupCommit[int, int] = GroupCommit(lambda _items: [1], name="test-writer", answer_within_s=60)
    outcomes = await asyncio.gather(writer.submit(1), writer.submit(2), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RuntimeError, RuntimeError]
    assert await writer.submit(3) == 1
    await writer.aclose()


async def test_a_cancelled_caller_disturbs_nobody(writer: GroupCommit[int, int], recorder: Recorder) -> None:
    """A caller that stops waiting does not remove its item, and the other callers get their results."""
    recorder.gate.clear()
    futures = [writer.submit(item) for item in range(3)]
    waiting = asyncio.ensure_future(asyncio.wait_for(futures[1], 10))
    await asyncio.sleep(0)
    waiting.cancel()
    recorder.gate.set()
    assert (await futures[0], await futures[2]) == (0, 20)
    assert futures[1].cancelled()
    assert recorder.batches == [[0, 1, 2]]


async def test_beyond_its_bound_it_refuses_at_once(recorder: Recorder) -> None:
    """A full queue says so instead of growing, and takes items again once there is room."""
    writer: GroupCommit[int, int] = GroupCommit(
        recorder, name="test-writer", answer_within_s=60, max_waiting=3
    )
    futures = [writer.submit(item) for item in range(3)]
    with pytest.raises(asyncio.QueueFull):
        writer.submit(3)
    await asyncio.gather(*futures)
    assert await writer.submit(4) == 40
    await writer.aclose()


async def test_the_end_commits_what_waits(recorder: Recorder) -> None:
    """`aclose` returns once everything is committed; later calls are refused; a second `aclose` is no error."""
    writer: GroupCommit[int, int] = GroupCommit(recorder, name="test-writer", answer_within_s=60)
    futures = [writer.submit(item) for item in range(MAX_BATCH * 2)]
    await writer.aclose()
    assert all(future.done() for future in futures)
    assert sum(map(len, recorder.batches)) == MAX_BATCH * 2
    with pytest.raises(asyncio.QueueFull):
        writer.submit(1)
    await writer.aclose()


async def test_a_cancelled_end_does_not_cancel_what_is_being_committed(
    writer: GroupCommit[int, int], recorder: Recorder
) -> None:
    """A shutdown that runs out of patience leaves the callers with their results."""
    recorder.gate.clear()
    future = writer.submit(1)
    closing = asyncio.ensure_future(writer.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    recorder.gate.set()
    assert await future == 10
    assert closing.cancelled()


async def test_a_call_runs_between_batches(writer: GroupCommit[int, int], recorder: Recorder) -> None:
    """`run` uses the same thread, so that a call never meets a commit."""
    recorder.gate.clear()
    future = writer.submit(1)
    await asyncio.sleep(0)
    call = asyncio.ensure_future(writer.run(lambda: len(recorder.batches)))
    recorder.gate.set()
    assert await call == 1
    assert await future == 10


async def test_the_end_waits_for_a_call_without_holding_up_the_loop(recorder: Recorder) -> None:
    """While the last call runs on the thread, the event loop goes on."""
    writer: GroupCommit[int, int] = GroupCommit(recorder, name="test-writer", answer_within_s=60)
    released = threading.Event()
    call = asyncio.ensure_future(writer.run(lambda: int(released.wait())))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(writer.aclose())
    await asyncio.sleep(0)
    released.set()  # reached only if `aclose` does not block
    await closing
    assert await call == 1


async def test_who_waits_too_long_is_told(recorder: Recorder) -> None:
    """If a disk hangs, each caller gets an error after its own time, and later calls succeed again."""
    writer: GroupCommit[int, int] = GroupCommit(recorder, name="test-writer", answer_within_s=0.05)
    recorder.gate.clear()
    stuck = writer.submit(1)
    await asyncio.sleep(0)  # its batch has begun
    behind = writer.submit(2)
    for future in (stuck, behind):
        with pytest.raises(TimeoutError, match=r"0\.05"):
            await future
    late = writer.submit(3)
    recorder.gate.set()
    assert await late == 30
    await writer.aclose()
    assert recorder.batches == [[1], [2, 3]], "who was told may still be committed"
