"""Runs commands of `relay audit` for a running relay, one after the other.

The start of Python takes longer than most answers. This process has imported what they need, and forks for each of
them. Standard input is a socket. A message has the command's arguments as JSON, and the file that takes its answer.
What comes back is a line of JSON: the exit code, and what the command wrote to standard error.
"""

import gc
import importlib
import json
import os
import socket
import sys
from contextlib import suppress

from relay.__main__ import main as run

_IMPORTED = (
    *(f"relay.cli.audit.{name}" for name in ("output", "publications", "sent", "stats", "who", "why")),
    *(f"relay.audit.index.{name}" for name in ("database", "publications", "questions")),
    "pydantic.type_adapter",  # by Typer, for a number
)
_MAX_ARGUMENTS = 32 << 10
_MAX_NOTES = 16 << 10


def main() -> None:
    """Answer until nobody asks any more."""
    for name in _IMPORTED:
        with suppress(ModuleNotFoundError):  # DuckDB is not installed: the commands say so
            importlib.import_module(name)
    gc.freeze()  # what is here is looked at by no collection of a child, and so not copied
    with socket.socket(fileno=os.dup(0)) as asking:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        while True:
            message, answers, *_ = socket.recv_fds(asking, _MAX_ARGUMENTS, 1)
            if not message:
                return
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                os.dup2(answers[0], 1)
                os.dup2(writing, 2)
                break
            os.close(answers[0])
            os.close(writing)
            with os.fdopen(reading, "rb") as notes:
                said = notes.read(_MAX_NOTES)
                while notes.read(_MAX_NOTES):
                    pass
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            asking.sendall(json.dumps([code, said.decode(errors="replace").strip()]).encode() + b"\n")
    sys.argv = ["relay", "audit", *json.loads(message)]
    run()


if __name__ == "__main__":
    main()
