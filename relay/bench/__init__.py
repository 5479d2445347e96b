"""The load generator behind `relay bench`: it meets the relay as a user does, over public sockets only.

Each program is a process of its own, so that each one's CPU can be told from the others':

    the command       starts and ends the others, tells them when, reads the servers' CPU   delivery, turns
    the relay         `relay serve` with keys and settings of its own, or one that runs      relays, subjects
    the publisher     publishes at a pace, over HTTP                                         publishing, ticks
    a backend         publishes with the Python SDK                                          sending
    the load          takes tokens, connects, counts what arrives                            opening, load, counting
    a slow reader     reads so many bytes a second, or stops reading                         reading
    newcomers         take tokens, then connect, many at once                                connecting
    the yardstick     a small server that does the same with another library                 yardstick

A benchmark (`fanout`, `mixed`, `slow_reader`, `connect`, `replay`) is one module: its options, and a function
that makes all runs and returns a `report.Report`. That is all that the command line and `relay bench all`
(`suite`, `document`, `chart`) know of it, so another one is a module more and a line in the suite.

The relay and the yardstick never run at the same time, and meet the same load from the same code. What the
processes say to each other is one JSON object a line (`processes`, `orders`).
"""

from relay.core.errors import RelayError


class BenchError(RelayError):
    """A measurement that could not be made; the text is one sentence about what stood in its way."""
