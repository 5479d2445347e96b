"""The load generator behind `relay bench`: it uses the relay as clients do, over public sockets only.

    benchmarks/   one module a benchmark: its options, its figures, its runs
    load/         programs that make load, what they measure the relay beside, and how processes are started and asked
    report.py     figures, tables, JSON, the Markdown document

Each program is a process of its own, so that its CPU is counted apart from the others':

    the command      starts and ends the others, gives them orders, reads the servers' CPU  benchmarks/, load/servers
    the relay        `relay serve` with keys and settings of its own                        load/servers
    the publisher    publishes at a pace, over HTTP or with the Python SDK                  load/publisher
    the subscribers  take tokens, connect, count what arrives                               load/subscribers
    a slow reader    reads so many bytes a second, or stops reading                         load/slow_reader
    new connections  take tokens and connect, many at once                                  load/connections, browsers
    the yardstick    a small server that does the same with another library                 load/yardstick

The relay and the yardstick never run at the same time, and get the same load from the same code. Processes exchange
one JSON object a line (`load/processes`, `load/orders`). README.md says how to add a benchmark.
"""

from relay.core.errors import RelayError


class BenchError(RelayError):
    """A measurement failed; the text is one sentence that says why."""
