"""Settings of Python's cycle collector for a process that holds thousands of connections."""

import gc

GENERATION_0_OBJECTS = 2_000
"""New objects, less the freed ones, per generation-0 collection. One collection takes about 1 ms."""
GENERATION_1_EVERY = 2
"""Generation-0 collections per generation-1 collection. With 10, which is Python's default, generation-1 collections
held the loop for 20 to 65 ms during a burst of connections, and with 2 for 3 to 10 ms."""
GENERATION_2_EVERY = 4_000
"""Generation-1 collections per full collection.

The collector stops everything while it looks for objects that only refer to each other. A full collection looks at
each object of every open connection: 0.9 s at 10,000 connections, in which no price moves, and a burst of connections
starts it again and again. It would find nothing. Requests leave no cycles (`relay.web.bounded_protocol`), and a
connection breaks its own cycles at its end (`relay.stream.connection`), so that reference counting frees everything.

So full collections are put off until hundreds of thousands of objects more than usual are alive, which would be a leak.
The two short collections stay, for what an error leaves behind.
"""


def tune_gc() -> None:
    """Exclude all present objects from collections, and put off full ones. Call it when the process has started."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GENERATION_0_OBJECTS, GENERATION_1_EVERY, GENERATION_2_EVERY)
