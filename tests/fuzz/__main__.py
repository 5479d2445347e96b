"""Fuzz the parsers with atheris, for a bounded time: `python -m tests.fuzz [--seconds 60] [TARGET ...]`.

One process a target, one after the other, guided by which lines of the relay each input reaches. What raised is kept
as a file in the folder of `--corpus` and shown with its traceback; it belongs into the target's seeds, where every
run of the tests reads it. Needs `pip install atheris`. Exit code 0: nothing was found.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import TARGETS, WORDS

MEMORY_MB = 1024
SLOWEST_S = 5
"""No input may take so long: parsers that can be made slow are found by this."""
LONGEST_BYTES = 4096


def main() -> int:
    """Run the targets that are named, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Fuzz the parsers with atheris, for a bounded time."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument(
        "--corpus", type=Path, help="a folder to keep and to begin from; else a temporary one"
    )
    asked = parser.parse_args()
    if unknown := set(asked.targets) - TARGETS.keys():
        parser.error(f"there is no target {min(unknown)}")
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is missing: pip install atheris")
    with tempfile.TemporaryDirectory(prefix="relay-fuzz-") as temporary:
        corpus = asked.corpus or Path(temporary)
        failed = [name for name in asked.targets or TARGETS if not _run(name, corpus, seconds=asked.seconds)]
    print(f"Found something in: {', '.join(failed)}." if failed else "Nothing was found.", flush=True)
    return 1 if failed else 0


def _run(name: str, corpus: Path, *, seconds: int) -> bool:
    print(f"--- {name}", flush=True)
    folder = corpus / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (folder / f"seed-{number}").write_bytes(seed)
    words = corpus / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS))
    options = (
        *(str(folder), f"-dict={words}", f"-artifact_prefix={corpus}/{name}-", f"-max_total_time={seconds}"),
        *(f"-rss_limit_mb={MEMORY_MB}", f"-timeout={SLOWEST_S}", f"-max_len={LONGEST_BYTES}", "-verbosity=0"),
        "-print_final_stats=1",
    )
    return (
        subprocess.run([sys.executable, "-m", "tests.fuzz.guided", name, *options], check=False).returncode
        == 0
    )


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
