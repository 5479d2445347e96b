"""The constraints: exact versions and hashes of all packages that the demo, the image and the tests install.

    python -m tests.support.constraints --write      adds what pyproject.toml asks for now, and keeps the other versions
    python -m tests.support.constraints --upgrade    renews all versions, within the bounds of pyproject.toml
    python -m tests.support.constraints --newest     prints the requirements of the tests without their upper bounds
    python -m tests.support.constraints --compare    names the installed packages that have other versions

The first two need uv (`pip install uv`). The versions are right for each Python and each platform, and the hashes are
those of all files of a release. The files name no index: pip asks the one that its user has set.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
TESTS: Final = "tests/constraints.txt"
"""Everything: what the tests need, the relay's packages and the build's."""
RELAY: Final = "examples/constraints.txt"
"""What the relay needs, with the extras `audit` and `redis`."""
BUILD: Final = "examples/build-constraints.txt"
"""What builds the relay's wheel, and installs a checkout as it is (`editables`: hatchling asks for it then)."""
FILES: Final = (TESTS, RELAY, BUILD)

_PIN = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.MULTILINE)
_UPPER_BOUND = re.compile(r",\s*<[^,;\s]*")


def pyproject() -> dict[str, Any]:
    """Return what pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def build_requirements() -> list[str]:
    """Return what must be installed to build the relay."""
    return [*pyproject()["build-system"]["requires"], "editables>=0.5"]


def newest_requirements() -> list[str]:
    """Return what the tests need, without upper bounds: what a release after the bounds would break is seen then."""
    project = pyproject()["project"]
    extras = [each for group in project["optional-dependencies"].values() for each in group]
    wanted = [*project["dependencies"], *extras, *build_requirements()]
    return [_UPPER_BOUND.sub("", each) for each in wanted if not each.startswith(project["name"])]


def pinned(name: str) -> dict[str, set[str]]:
    """Return the versions in a file, by package. There are several if they depend on the Python."""
    found: dict[str, set[str]] = {}
    for package, release in _PIN.findall((ROOT / name).read_text("utf-8")):
        found.setdefault(package, set()).add(release)
    return found


def compare() -> list[str]:
    """Return a line for each installed package whose version is not that of the constraints."""
    lines = []
    for package, releases in pinned(TESTS).items():
        try:
            installed = version(package)
        except PackageNotFoundError:  # for another platform
            continue
        if installed not in releases:
            lines.append(f"{package}: {installed} instead of {' or '.join(sorted(releases))}")
    return lines


def write(*options: str) -> None:
    """Compile the files."""
    build = "\n".join(build_requirements())
    _compile(TESTS, ["pyproject.toml", "--all-extras", "-"], build, options)
    _compile(
        RELAY, ["pyproject.toml", "--extra", "audit", "--extra", "redis", "--constraints", TESTS], "", options
    )
    _compile(BUILD, ["-", "--constraints", TESTS], build, options)


def _compile(name: str, sources: Sequence[str], text: str, options: Sequence[str]) -> None:
    command = ["uv", "pip", "compile", *sources, "--output-file", name, "--quiet", *options]
    command += [
        "--universal",
        "--python-version",
        "3.11",
        "--generate-hashes",
        "--no-emit-index-url",
        "--no-annotate",
    ]
    command += ["--custom-compile-command", "python -m tests.support.constraints --upgrade"]
    try:
        subprocess.run(command, input=text, text=True, check=True, cwd=ROOT)
    except FileNotFoundError:
        sys.exit("uv is missing: pip install uv")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--write"]:
            write()
        case ["--upgrade"]:
            write("--upgrade")
        case ["--newest"]:
            print("\n".join(newest_requirements()))
        case ["--compare"]:
            print("\n".join(compare()) or "none")
        case _:
            sys.exit(__doc__)
