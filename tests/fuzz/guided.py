"""One target in this process, guided by coverage: what `python -m tests.fuzz` starts. It ends the process.

What is fuzzed is imported in here only, so that atheris can put its counters into the relay's code and nobody else's.
"""

import sys

import atheris

with atheris.instrument_imports(include=["relay"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    name, *options = sys.argv[1:]
    atheris.Setup(["tests.fuzz", *options], TARGETS[name].feed)
    atheris.Fuzz()
