"""A node and an engine that die under load: what fifty clients notice. `tests.support.restarts` does it with 2,000."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.relay_process import Relay
from tests.support.restarts import Fault, failing_over, made_up, watch
from tests.support.two_relays import two_relays

CLIENTS = 25


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Relay, Fault]]:
    """Two relays, and what kills the master of their engine."""
    with contextlib.ExitStack() as stack:
        url, kill_master = stack.enter_context(failing_over(tmp_path_factory.mktemp("engine")))
        one, other = stack.enter_context(two_relays(tmp_path_factory.mktemp("relays"), url, history=10_000))
        yield one, other, kill_master


def test_clients_are_told_of_the_gap_of_a_failover(nodes: tuple[Relay, Relay, Fault], tmp_path: Path) -> None:
    """They stay connected. The replica begins a new epoch, so each stream has a gap; nothing is missing silently."""
    one, other, kill_master = nodes
    ticks = made_up(tmp_path, symbols=5, rate=100, seconds=300)
    watched = watch("engine", [one, other], kill_master, ticks, tmp_path, clients=CLIENTS, quiet_s=0)
    assert watched.broken() == []
    assert (watched.after.ended, watched.after.gaps) == (0, CLIENTS)


def test_clients_of_a_killed_node_go_on_at_the_other_one(
    nodes: tuple[Relay, Relay, Fault], tmp_path: Path
) -> None:
    """Half of them lose their connection. Their streams go on without a gap, and no price is an old one."""
    one, other, _ = nodes
    ticks = made_up(tmp_path, symbols=5, rate=100, seconds=300)
    watched = watch("node", [one, other], one.kill, ticks, tmp_path, clients=CLIENTS, quiet_s=0)
    assert watched.broken() == []
    assert 0 < watched.after.ended == watched.after.returned
