"""Python's cycle collector, set for a process that holds thousands of connections.

The collector stops everything while it looks for objects that only refer to each other. Its full run, which a burst
of connections triggers time and again, looks at each object of every open one: 0.9 s at 10,000 connections, in which
no price moves. It would find nothing: requests leave no cycles (`relay.web.bounded_protocol`), and a connection breaks
its own when it is over (`relay.stream.connection`), so that counting references frees all.

So the full run is put off until hundreds of thousands of objects more than usual are alive, which would be a leak;
the two short ones go on as a net for what an error leaves behind. The second looks at what has come since it last ran:
with ten runs of the first in between, which is Python's own setting, it held the loop for 20 to 65 ms during a burst,
and with two for 3 to 10.
"""

import gc

FIRST = 2_000
"""Objects made, less those freed, between two looks at the newest ones: about 1 ms each."""
SECOND = 2
"""Of the first kind before one of the second."""
FULL = 4_000
"""Of the second kind between two full ones."""


def tune_gc() -> None:
    """Leave what the start has made out of all runs, and put off the full ones. Call it when everything is made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(FIRST, SECOND, FULL)
