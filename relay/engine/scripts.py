"""The scripts that the engine runs: `lua/*.lua`, each with `lua/life.lua` before it if it writes."""

import hashlib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Script:
    """A script and its SHA-1, by which the engine knows it."""

    name: str
    text: str = field(repr=False)
    sha: str = field(repr=False)


@cache
def script(name: str) -> Script:
    """Return the script of a file. `life.lua` has the functions that all of them use."""
    folder = resources.files("relay.engine") / "lua"
    text = f"{(folder / 'life.lua').read_text()}\n{(folder / f'{name}.lua').read_text()}"
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
