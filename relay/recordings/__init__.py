"""Recorded market traffic: reading it (`lines`) and playing it with its own rhythm (`replay`)."""

from relay.recordings.lines import LineProblem
from relay.recordings.replay import Replay, Tally

__all__ = ["LineProblem", "Replay", "Tally"]
