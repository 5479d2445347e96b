"""Recorded market traffic: `lines` reads it, and `replay` plays it at its recorded pace."""

from relay.recordings.lines import LineProblem
from relay.recordings.replay import Replay, Tally

__all__ = ["LineProblem", "Replay", "Tally"]
