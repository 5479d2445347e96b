"""A recording as a script: what is in it, when, and where."""

import json
from pathlib import Path

import pytest

from relay.bench.load.ticks import PRICES, TRADES, Ticks, write_script
from relay.core.errors import ConfigurationError

START_NS = 1_723_161_254_000_000_000


def quote(at_s: float, bid: str) -> str:
    """Return a recorded best bid and ask."""
    data = {"u": 1, "s": "BTCUSDT", "b": bid, "B": "1.0", "a": "2.0", "A": "1.0"}
    return f"{START_NS + int(at_s * 1e9)} {json.dumps({'stream': 'btcusdt@bookTicker', 'data': data})}\n"


def trade(at_s: float, number: int) -> str:
    """Return a recorded trade."""
    data = {"e": "trade", "s": "BTCUSDT", "t": number, "p": "1.5", "q": "0.1", "m": True}
    return f"{START_NS + int(at_s * 1e9)} {json.dumps({'stream': 'btcusdt@trade', 'data': data})}\n"


def test_what_is_played_is_known_before(tmp_path: Path) -> None:
    """Counts by channel, length, and longest pause are those of the play, ten times as fast."""
    recording = tmp_path / "spot_btcusdt"
    recording.write_text(quote(0, "1.0") + trade(1, 7) + "not a line\n" + quote(2, "1.1") + quote(22, "1.2"))
    shares: list[float] = []
    script = write_script([recording], tmp_path / "script", speed=10, seconds=60, show=shares.append)
    assert script.counts == {"prices.BTCUSDT": 3, "trades.BTCUSDT": 1}
    assert (script.total(), script.total(PRICES), script.total(TRADES)) == (4, 3, 1)
    assert (script.places(PRICES), script.places(TRADES)) == ([0], [1])
    assert script.seconds == pytest.approx(2.2)
    assert script.pause_s == pytest.approx(2.0)
    assert script.malformed == 1
    assert shares[-1] == 1.0

    ticks = Ticks(run="0a1b2c3d", channels=script.channels, script=str(script.path), streams=frozenset([1]))
    played = [(tick.due_s, tick.channel, tick.number) for tick in ticks.due()]
    assert played == [(0.0, 0, -1), (0.1, 1, 0), (0.2, 0, -1), (2.2, 0, -1)]
    assert json.loads(next(ticks.due()).data)["bid"] == "1.0"


def test_it_ends_when_the_time_is_up(tmp_path: Path) -> None:
    """What would be played after so many seconds is left out."""
    recording = tmp_path / "spot_btcusdt"
    recording.write_text(quote(0, "1.0") + quote(2, "1.1") + quote(22, "1.2"))
    script = write_script([recording], tmp_path / "script", speed=10, seconds=1, show=lambda _share: None)
    assert script.total() == 2


def test_nothing_to_play_is_told(tmp_path: Path) -> None:
    """A file without a quote or a trade is a mistake in the command."""
    recording = tmp_path / "empty"
    recording.write_text("nothing\n")
    with pytest.raises(ConfigurationError, match="nothing to play in these files"):
        write_script([recording], tmp_path / "script", speed=1, seconds=1, show=lambda _share: None)
