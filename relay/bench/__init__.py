"""The load generator behind `relay bench`: it meets the relay as a user does, over public sockets only.

Four processes, so that each one's CPU can be told from the others':

    the command       starts and ends the others, publishes, reads the servers' CPU      fanout, publishing
    the relay         `relay serve` with keys and settings of its own, or one that runs   relays
    the load          takes tokens, connects, counts what arrives                         opening, load, counting
    the yardstick     a server of ten lines that does the same with another library       yardstick

The relay and the yardstick never run at the same time, and meet the same load from the same code. What the
processes say to each other is one JSON object a line (`processes`).
"""

from relay.core.errors import RelayError


class BenchError(RelayError):
    """A measurement that could not be made; the text is one sentence about what stood in its way."""
