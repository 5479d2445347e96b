"""The map of the code is true: rooms and walks of `relay/__init__.py`, and the places that tests/README.md names."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path

import pytest

import relay
from tests.support import readme

MAP = relay.__doc__ or ""
STEP = re.compile(r"^ {4}(?P<file>[\w/]+\.py):(?P<name>[\w.]+) ", re.MULTILINE)
MENTION = re.compile(r"\b([\w/]+\.py):([\w.]*\w)")
PLACE = re.compile(r"`(?P<file>(?:relay|tests|examples)/[\w./-]*)(?::(?P<name>[\w.]+))?`")
GUIDE = (readme.ROOT / "tests/README.md").read_text("utf-8")
CHANGES = readme.rows_by_first_cell(GUIDE, "to change")


@cache
def definitions(file: Path) -> dict[str, int]:
    """Return the line of each class, function, method and constant of a module, by its qualified name."""
    return dict(_definitions(ast.parse(file.read_text("utf-8")), ""))


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for inner in ast.iter_child_nodes(node):
        match inner:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield prefix + inner.name, inner.lineno
                yield from _definitions(inner, f"{prefix}{inner.name}.")
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                yield prefix + name, inner.lineno


def walks() -> dict[str, list[tuple[str, str]]]:
    """Return the walks of the map, by their headings: lists of file and name."""
    parts = re.split(r"^(One .*):$", MAP, flags=re.MULTILINE)[1:]
    return {
        heading: [(step["file"], step["name"]) for step in STEP.finditer(text)]
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


def test_the_map_has_every_room() -> None:
    """Each folder and module of the package has one line in the map, and the map has no other."""
    package = Path(relay.__file__).parent
    rooms = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in package.iterdir()
        if (path.is_dir() or path.suffix == ".py") and not path.name.startswith("_")
    }
    listed = re.findall(r"^ {4}([a-z_]+(?:/|\.py)) ", MAP, re.MULTILINE)
    assert sorted(listed) == sorted(rooms)


@pytest.mark.parametrize("heading", walks())
def test_every_walk_has_steps(heading: str) -> None:
    """A heading that the parser does not understand would leave a walk unchecked."""
    assert walks()[heading]


@pytest.mark.parametrize("place", sorted(set(MENTION.findall(MAP))), ids=":".join)
def test_every_place_of_the_map_exists(place: tuple[str, str]) -> None:
    """Each file that the map names is there, and each name is defined in it."""
    file, name = place
    assert name in definitions(Path(relay.__file__).parent / file)


@pytest.mark.parametrize("heading", walks())
def test_a_walk_never_goes_back(heading: str) -> None:
    """A reader who follows a walk opens each file once, and reads it from its top to its end."""
    files = [file for file, _ in groupby(walks()[heading], key=lambda step: step[0])]
    assert len(files) == len(set(files)), files
    for file, steps in groupby(walks()[heading], key=lambda step: step[0]):
        lines = [definitions(Path(relay.__file__).parent / file)[name] for _, name in steps]
        assert all(before < after for before, after in pairwise(lines)), file


def test_the_guide_answers_the_usual_changes() -> None:
    """tests/README.md says for twenty changes which file to open."""
    assert len(CHANGES) >= 20
    assert all(PLACE.search(row[1]) for row in CHANGES.values())


@pytest.mark.parametrize("place", list(PLACE.finditer(GUIDE)), ids=lambda found: found[0].strip("`"))
def test_every_place_of_the_guide_exists(place: re.Match[str]) -> None:
    """Each file that tests/README.md names exists, and so does each name in it."""
    file = readme.ROOT / place["file"]
    assert file.exists()
    if place["name"]:
        assert place["name"] in definitions(file)
