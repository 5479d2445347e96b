"""The CPU that a command takes to start, beside an empty Typer program in the same run.

    python -m tests.support.startup [ROUNDS]

Every round starts each program once, so that a slow moment of the machine hits all of them. Printed are the medians
of all rounds. Exit code 1: a command takes more than `LIMIT` times the CPU of the empty program.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Final

LIMIT: Final = 2.5
ROUNDS: Final = 11

EMPTY: Final = """
import typer

app = typer.Typer(add_completion=False)

@app.command()
def one() -> None:
    "Do nothing."

@app.command()
def two() -> None:
    "Do nothing."

app()
"""
COMMANDS: Final = (["--help"], ["--version"], ["token", "inspect", "a.b.c"], ["audit", "--help"])


def cpu_s(command: list[str]) -> float:
    """Return the seconds of CPU that a command takes, with its imports."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int) -> tuple[float, dict[str, float]]:
    """Return the median CPU seconds of the empty program, and of each command by its name."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "empty.py"
        program.write_text(EMPTY, "utf-8")
        programs = {"empty": [str(program), "--help"]}
        programs |= {" ".join(["relay", *arguments]): ["-m", "relay", *arguments] for arguments in COMMANDS}
        found: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name, arguments in programs.items():
                found[name].append(cpu_s([sys.executable, *arguments]))
    medians = {name: median(seconds) for name, seconds in found.items()}
    return medians.pop("empty"), medians


def main() -> None:
    """Measure, print a line for each command, and exit."""
    empty, commands = measure(int(sys.argv[1]) if sys.argv[1:] else ROUNDS)
    sys.stdout.write(f"{empty * 1000:6.0f} ms         an empty Typer program\n")
    for name, seconds in commands.items():
        sys.stdout.write(f"{seconds * 1000:6.0f} ms  {seconds / empty:4.1f} x  {name}\n")
    sys.exit(any(seconds > LIMIT * empty for seconds in commands.values()))


if __name__ == "__main__":
    main()
