"""The constraints: files of exact versions with hashes, from which the demo, the image and the tests are installed."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.constraints import (
    BUILD,
    FILES,
    RELAY,
    TESTS,
    build_requirements,
    newest_requirements,
    pinned,
    pyproject,
)

ROOT = Path(__file__).parents[1]


def wanted() -> dict[str, list[str]]:
    """Return by file what it must have."""
    project = pyproject()["project"]
    extras = [each for group in project["optional-dependencies"].values() for each in group]
    own = [each for each in extras if not each.startswith(project["name"])]
    build = build_requirements()
    return {
        RELAY: [*project["dependencies"], *project["optional-dependencies"]["audit"]],
        BUILD: build,
        TESTS: [*project["dependencies"], *own, *build],
    }


@pytest.mark.parametrize("name", FILES)
def test_each_version_has_hashes_and_no_index(name: str) -> None:
    """Each package has one version for a Python, with hashes. No address and no option of pip is in the file."""
    text = "\n".join(line for line in (ROOT / name).read_text("utf-8").splitlines() if line[:1] != "#")
    pin = r"[\w.-]+==[^\s;\\]+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.fullmatch(f"({pin})+", text + "\n")


@pytest.mark.parametrize("name", FILES)
def test_the_versions_are_within_the_bounds(name: str) -> None:
    """What pyproject.toml asks for is in the file, in a version within its bounds. Else: see tests/README.md."""
    there = pinned(name)
    for requirement in map(Requirement, wanted()[name]):
        releases = there.get(canonicalize_name(requirement.name), set())
        assert releases, requirement
        assert all(release in requirement.specifier for release in releases), requirement


def test_a_package_has_one_version_in_all_files() -> None:
    """What the demo and the image install is what the tests ran with."""
    everything = pinned(TESTS)
    for name in (RELAY, BUILD):
        assert {package: everything[package] for package in pinned(name)} == pinned(name)


def test_the_newest_versions_are_above_the_upper_bounds() -> None:
    """A run with the newest versions asks for all packages of the tests, and has no upper bound."""
    newest = {requirement.name: requirement for requirement in map(Requirement, newest_requirements())}
    assert set(newest) == {Requirement(each).name for each in wanted()[TESTS]}
    for text in wanted()[TESTS]:
        requirement = Requirement(text)
        kept = {str(each) for each in newest[requirement.name].specifier}
        assert kept == {str(each) for each in requirement.specifier if "<" not in each.operator}
        assert newest[requirement.name].marker == requirement.marker


def test_the_image_installs_with_hashes() -> None:
    """Each package of the image is checked against its hash; the relay itself is built without a download."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text("utf-8"))
    commands = [each for line in text.splitlines() if line.startswith("RUN") for each in line.split("&&")]
    pips = [each for each in commands if "-m pip" in each]
    assert pips
    for command in pips:
        assert "--require-hashes" in command or "--no-deps" in command
        assert "--require-hashes" in command or "--no-index" in command or "--no-build-isolation" in command
