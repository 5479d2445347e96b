"""The load generator behind `relay bench`: it uses the relay as clients do, over public sockets only.

    benchmarks/   one module a benchmark: its options, its figures, its runs
    load/         programs that make load, what they measure the relay beside, and how processes are started and asked
    report.py     figures, tables, JSON, the Markdown document

Each program is a process of its own, so that its CPU is counted apart from the others'. Processes exchange one JSON
object a line (`load/processes`, `load/orders`). README.md says how to add a benchmark.
"""

from relay.core.errors import RelayError


class BenchError(RelayError):
    """A measurement failed; the text is one sentence that says why."""
