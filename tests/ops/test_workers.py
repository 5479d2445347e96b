"""Answers for all workers of a machine: sums, lists in one order, and the worst of what can't be added up."""

from typing import Any

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from relay.metrics.prometheus import Workers
from relay.ops.workers import merged_channels, merged_connections, merged_publishers, merged_stats

IDS = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(6)]


def stats(**changes: Any) -> dict[str, Any]:
    """Return the stats of one worker."""
    found = {
        "at": 10.0,
        "started_at": 1.0,
        "version": "1",
        "role": "all",
        "node": "host-1",
        "stopping": False,
        "connections": 2,
        "endpoints": {"prices": {"connections": 2, "channels": 5, "newest_s": 1.0, "oldest_s": 3.0}},
        "hub": {"publications": 7, "deliveries": 14},
        "times": {"bounds_s": [1, 2], "flush": {"counts": [1, 2, 3], "total_s": 4.0}},
        "events": [{"action": "a", "outcome": "success", "reason": "", "endpoint": "", "count": 3}],
    }
    return found | changes


def test_stats_are_added_up_and_ages_are_the_worst() -> None:
    """Connections and deliveries are of each worker; channels and publications are the same ones at all."""
    other = stats(
        at=11.0,
        started_at=0.5,
        node="host-2",
        connections=3,
        endpoints={"prices": {"connections": 3, "channels": 5, "newest_s": None, "oldest_s": 9.0}},
        hub={"publications": 6, "deliveries": 1},
        events=[
            {"action": "a", "outcome": "success", "reason": "", "endpoint": "", "count": 1},
            {"action": "b", "outcome": "failure", "reason": "r", "endpoint": "", "count": 1},
        ],
    )
    found = merged_stats([stats(), other], {})
    assert found["connections"] == 5
    assert found["endpoints"]["prices"] == {"connections": 5, "channels": 5, "newest_s": 1.0, "oldest_s": 9.0}
    assert found["hub"] == {"publications": 7, "deliveries": 15}
    assert found["times"]["flush"] == {"counts": [2, 4, 6], "total_s": 8.0}
    assert found["times"]["bounds_s"] == [1, 2]
    assert (found["at"], found["started_at"], found["node"]) == (11.0, 1.0, "host-1, host-2")
    assert not found["stopping"]
    assert {(event["action"], event["count"]) for event in found["events"]} == {("a", 4), ("b", 1)}


@pytest.mark.parametrize("limit", [1, 2, 3, 6])
def test_a_walk_over_pages_shows_each_connection_once(limit: int) -> None:
    """The oldest of all workers first, whichever worker has them, and none is left out between two pages."""
    workers = [
        [{"opened_at": float(at), "id": IDS[number]} for number, at in rows]
        for rows in ([(0, 1), (3, 4), (4, 4)], [(1, 2), (2, 3), (5, 4)])
    ]
    shown: list[str] = []
    after = (0.0, "")
    while True:
        answers = [
            {
                "total": 3,
                "connections": [row for row in rows if (row["opened_at"], row["id"]) > after][:limit],
            }
            for rows in workers
        ]
        page = merged_connections(answers, {"limit": str(limit)})
        assert page["total"] == 6
        shown += [row["id"] for row in page["connections"]]
        if page["next"] is None:
            break
        at, _, id_ = page["next"].partition("~")
        after = (float(at), id_)
    assert shown == IDS


def test_channels_have_the_subscribers_of_all_workers() -> None:
    """One row for a channel, with the newest position."""
    first = {"channel": "a", "seq": 1, "last_at": 1.0, "subscribers": 2}
    second = {"channel": "a", "seq": 2, "last_at": 2.0, "subscribers": 3}
    found = merged_channels(
        [{"total": 1, "channels": [first]}, {"total": 1, "channels": [second]}], {"limit": "1"}
    )
    assert found == {"total": 1, "channels": [{**second, "subscribers": 5}], "next": "a"}


def test_publishers_are_counted_over_all_workers() -> None:
    """A publisher's messages go to any worker."""
    counts = dict.fromkeys(("connections", "bytes", "alive", "refused", "stale", "duplicate"), 1)
    rows = [{"publisher": "p", "published": n, "last_at": at, **counts} for n, at in ((3, None), (4, 5.0))]
    (row,) = merged_publishers([{"at": 1.0, "publishers": [row]} for row in rows], {})["publishers"]
    assert (row["published"], row["bytes"], row["last_at"]) == (7, 2, 5.0)


def test_metrics_tell_which_worker_did_not_answer() -> None:
    """A worker that is missing without a word would look like a fall of all counts."""
    samples = [["relay_x", "X.", "counter", [["relay_x_total", {"a": "b"}, 3.0]]]]
    body = generate_latest(Workers({1: samples, 2: samples}, [4])).decode()
    families = {family.name: family.samples for family in text_string_to_metric_families(body)}
    assert [(one.labels, one.value) for one in families["relay_x"]] == [
        ({"a": "b", "worker": "1"}, 3.0),
        ({"a": "b", "worker": "2"}, 3.0),
    ]
    answered = {one.labels["worker"]: one.value for one in families["relay_worker_answered"]}
    assert answered == {"1": 1.0, "2": 1.0, "4": 0.0}
