"""Run the `relay` command as another user: `python -m tests.support.as_user UID relay ARGUMENTS`.

Everything is imported before, because that user may not be able to read this Python, as in the folder of root.
"""

import contextlib
import importlib
import os
import pkgutil
import sys

import anyio
import typer

import relay
from relay.cli import main

_NOT_NEEDED = ("relay.bench", "relay.demo", "relay.__main__", "typer.cli", "typer.__main__")


def _import_all() -> None:
    for package in (relay, anyio, typer):  # the last two load their parts when these are used
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # some parts of theirs are for Windows, or for another event loop
            with contextlib.suppress(*() if package is relay else (Exception,)):
                if not module.name.startswith(_NOT_NEEDED):
                    importlib.import_module(module.name)
    for name in (
        "encodings.idna",
        "encodings.utf_8_sig",
        "uvloop",
        "uvicorn.lifespan.off",
    ):
        importlib.import_module(name)


if __name__ == "__main__":
    user = int(sys.argv[1])
    sys.argv = sys.argv[2:]
    _import_all()
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    main()
