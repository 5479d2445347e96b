"""The project's rules that no linter knows: places, names and lengths of modules, and the container image.

The Dockerfile is checked here because an image that runs as root, or that contains a key, builds without an error.
"""

import ast
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.support.long_files import LONGEST_FIRST

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    "CHANGELOG.md",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "examples",
    "pyproject.toml",
    "relay",
    "tests",
}
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc", "shared"}
SHADOWS_STDLIB = {"logging", "token", "types", "secrets", "queue", "http"}
COMMANDS = Path("relay/cli")
"""A folder below this one is named after its command (`relay token`). Its modules are imported by full name only."""
MAX_LINES = 500
MAX_BENCH_LINES = 5050
"""The benchmarks measure the relay; they must not become as large as it is. 4000 held eight of them; the API proxy is a
ninth, with servers of its own to compare with, Server-Sent Events are a second transport for the readers, several
nodes with their engine are measured beside one, and each figure says what it should be.
"""


@cache
def files() -> tuple[Path, ...]:
    """Return the project's files, relative to its root: all that git tracks or would track."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout, so what belongs to the project is unknown")
    command = [git, "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return tuple(sorted(Path(name) for name in names if name and (ROOT / name).exists()))


def modules(*tops: str) -> list[Path]:
    """Return the Python files below these top-level folders."""
    return [path for path in files() if path.suffix == ".py" and path.parts[0] in tops]


def lines_of(path: Path) -> list[str]:
    """Return a file's lines."""
    return (ROOT / path).read_text("utf-8").splitlines()


@dataclass(frozen=True, slots=True)
class Syntax:
    """What the rules ask of a module's syntax tree.

    The trees of a thousand modules are a million objects. Kept, they make each pass of the garbage collector slow.
    """

    documented: bool
    imports: list[str]
    """Full names, wherever they are imported."""
    undocumented_tests: list[str]
    bracketed_plurals: list[int]
    """The lines of f-strings with a plural as in "line(s)"."""


@cache
def syntax(path: Path) -> Syntax:
    """Parse a module once for all rules."""
    module = ast.parse((ROOT / path).read_text("utf-8"), filename=str(path))
    found = Syntax(ast.get_docstring(module) is not None, [], [], [])
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found.imports.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.imports.extend(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("test_") and not ast.get_docstring(node):
                found.undocumented_tests.append(node.name)
        elif isinstance(node, ast.JoinedStr):
            texts = (str(part.value) for part in node.values if isinstance(part, ast.Constant))
            if any(re.search(r"[a-z]\(e?s\)", text) for text in texts):
                found.bracketed_plurals.append(node.lineno)
    return found


# --- places and names -----------------------------------------------------------------------------


def test_the_top_level_is_fixed() -> None:
    """The repository has these top-level entries and no others; names that begin with a dot are not counted."""
    entries = {path.parts[0] for path in files()}
    assert {entry for entry in entries if not entry.startswith(".")} - TOP_LEVEL == set()


def test_names_say_what_is_inside() -> None:
    """No module or folder has a name without meaning, or the name of a module of the standard library."""
    wrong = [
        str(path)
        for path in modules("relay", "tests", "examples")
        for folder, part in zip(path.parents, reversed(path.with_suffix("").parts), strict=False)
        if part in SAYS_NOTHING or (part in SHADOWS_STDLIB and not (folder == COMMANDS and path.stem != part))
    ]
    assert not wrong, wrong


def test_helpers_of_tests_lie_in_one_folder() -> None:
    """A module of tests that is neither a test nor a conftest lies in tests/support; the fuzzers have their own."""
    wrong = [
        str(path)
        for path in modules("tests")
        if path.parts[1] not in {"support", "fuzz"}
        and not path.name.startswith("test_")
        and path.name not in {"__init__.py", "conftest.py"}
    ]
    assert not wrong, wrong


def test_no_module_imports_from_a_test() -> None:
    """What several tests need is imported from tests/support, never from a test module or a conftest."""
    wrong = [
        f"{path}: {name}"
        for path in modules("relay", "tests", "examples")
        for name in syntax(path).imports
        if name.startswith("tests.") and re.search(r"\.(test_\w+|conftest)(\.|$)", name)
    ]
    assert not wrong, wrong


def test_the_long_test_files_exist() -> None:
    """Each file that the suite starts with exists under that name, and is named once."""
    assert sorted(LONGEST_FIRST) == sorted({str(path) for path in modules("tests")} & set(LONGEST_FIRST))


def test_no_package_is_empty() -> None:
    """A package has at least one module beside its __init__.py."""
    folders = {path.parent for path in modules("relay") if path.name == "__init__.py"}
    others = {parent for path in files() if path.name != "__init__.py" for parent in path.parents}
    wrong = sorted(map(str, folders - others))
    assert not wrong, wrong


# --- what is in a module --------------------------------------------------------------------------


def test_every_module_says_what_it_is_for() -> None:
    """Each module begins with a docstring; only an empty __init__.py of the tests has none."""
    paths = [
        path for path in modules("relay", "tests", "examples") if path.parts[0] == "relay" or lines_of(path)
    ]
    wrong = [str(path) for path in paths if not syntax(path).documented]
    assert not wrong, wrong


def test_every_test_says_what_it_proves() -> None:
    """Each test has a docstring that states the behaviour that it checks."""
    silent = [f"{path}: {name}" for path in modules("tests") for name in syntax(path).undocumented_tests]
    assert not silent, silent


def test_no_text_leaves_the_plural_to_its_reader() -> None:
    """`counted` writes "1 line" and "2 lines" at one place. Docstrings may have a bracket, as in http(s)."""
    found = [f"{path}:{line}" for path in modules("relay") for line in syntax(path).bracketed_plurals]
    assert found == []


def test_modules_stay_short() -> None:
    """No module is longer than the limit: a longer one has more than one subject."""
    lengths = {str(path): len(lines_of(path)) for path in modules("relay", "tests", "examples")}
    long = {path: length for path, length in lengths.items() if length > MAX_LINES}
    assert not long, long


def test_cookies_are_set_and_cleared_in_one_place() -> None:
    """Only `relay/web/cookies.py` writes Set-Cookie, so a cookie is cleared for the causes of its table alone.

    The API proxy's header lists pass on those cookies of the backend that the settings name.
    """
    writes = re.compile(r"""\.(?:set|delete)_cookie\(|["']set-cookie["']""", re.IGNORECASE)
    found = {path for path in modules("relay") if any(writes.search(line) for line in lines_of(path))}
    assert found == {Path("relay/web/cookies.py"), Path("relay/bff/proxy/headers.py")}


def test_the_benchmarks_stay_small() -> None:
    """All benchmarks with their commands are no longer than the limit."""
    paths = [
        path
        for path in modules("relay")
        if path.parts[1] == "bench" or path.parts[:3] == ("relay", "cli", "bench")
    ]
    assert sum(len(lines_of(path)) for path in paths) <= MAX_BENCH_LINES


def test_exceptions_to_the_checks_have_reasons() -> None:
    """Each `noqa` and `type: ignore` names its rule and gives a reason."""
    suppression = re.compile(r"#\s*(noqa|type:\s*ignore)\b")
    explained = re.compile(r"#\s*(noqa: [A-Z0-9, ]+|type: ignore\[[a-z-, ]+\])\s*(#|-|:)\s*\S.*\w")
    bare = [
        f"{path}:{number}"
        for path in modules("relay", "tests", "examples")
        if path != Path("tests/test_house.py")
        for number, line in enumerate(lines_of(path), start=1)
        if suppression.search(line) and not explained.search(line)
    ]
    assert not bare, bare


def test_shell_scripts_parse() -> None:
    """Bash parses every shell script without an error."""
    shells = ("#!/usr/bin/env bash", "#!/bin/sh", "#!/bin/bash", "# shellcheck shell=")
    binary = {".png", ".gz", ".woff2", ".ico"}
    scripts = [
        path
        for path in files()
        if path.suffix not in binary
        and (ROOT / path).is_file()
        and (lines_of(path) or [""])[0].startswith(shells)
    ]
    assert Path("tests/run") in scripts
    for script in scripts:
        done = subprocess.run(["bash", "-n", str(ROOT / script)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), script


# --- the image ------------------------------------------------------------------------------------


@cache
def instructions() -> tuple[tuple[str, str], ...]:
    """Return the Dockerfile's instructions in their order, each with its arguments on one line."""
    text = "\n".join(line for line in lines_of(Path("Dockerfile")) if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", text)
    found = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return tuple((name.upper(), arguments) for name, arguments in found)


def last_stage() -> dict[str, str]:
    """Return the last stage's instructions; if one is repeated, its last value."""
    stage: dict[str, str] = {}
    for name, arguments in instructions():
        stage = {} if name == "FROM" else stage
        stage[name] = arguments
    return stage


def test_the_image_does_not_run_as_root() -> None:
    """The user is a number other than 0, because an orchestrator cannot check a name."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last_stage()["USER"])


def test_the_image_checks_its_health() -> None:
    """The health check calls the relay's /live with Python: the image has no curl."""
    how, argv = last_stage()["HEALTHCHECK"].split("CMD", 1)
    program, _, code = json.loads(argv)
    assert "--timeout=" in how
    assert program == "python"
    assert "/live" in code
    compile(code, "HEALTHCHECK", "exec")


def test_the_image_copies_only_what_exists() -> None:
    """Each source of a COPY exists and is allowed by .dockerignore."""
    allowed = {line[1:] for line in lines_of(Path(".dockerignore")) if line.startswith("!")}
    for name, arguments in instructions():
        if name != "COPY" or "--from=" in arguments:
            continue
        for source in arguments.split()[:-1]:
            source = source.removeprefix("./").rstrip("/")
            assert (ROOT / source).exists(), source
            assert source in allowed, source


def test_the_image_has_no_secret_in_it() -> None:
    """No variable or build argument has a secret's name, and no ADD fetches a file."""
    for name, arguments in instructions():
        assert name != "ADD"
        if name in {"ENV", "ARG"}:
            assert not re.search(r"secret|password|passwd|token\b|_key\b", arguments, re.IGNORECASE), (
                arguments
            )
