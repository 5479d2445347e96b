"""Python's cycle collector, set for a process that holds thousands of connections.

The collector stops everything while it looks for objects that only refer to each other. Its full run, which a burst
of connections triggers time and again, looks at each object of every open one: 0.9 s at 10,000 connections, in which
no price moves. It would find nothing: requests leave no cycles, and a connection breaks its own when it is over
(`relay.stream.connection`), so that counting references frees all.

So the full run is put off until hundreds of thousands of objects more than usual are alive, which would be a leak;
the two short ones go on as a net for what an error leaves behind. A run of the second is 12 ms.
"""

import gc

FIRST = 2_000
"""Objects made, less those freed, between two looks at the newest ones: about 1 ms each."""
SECOND = 10
"""Of the first kind between two of the second."""
FULL = 1_000
"""Of the second kind between two full ones."""


def spare_the_living() -> None:
    """Leave what the start has made out of all runs, and put off the full ones. Call it when everything is made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(FIRST, SECOND, FULL)
