"""The client's files: small, without dependencies, typed, and built from the sources beside them."""

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.chromium import missing
from tests.support.scripted_relay import CLIENT

PACKAGE = CLIENT.parents[1]
MINIFIED = CLIENT.with_suffix(".min.js")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the sources make, built with the exact versions of package.json."""
    npm = shutil.which("npm") or missing("npm is missing: apt-get install npm")
    folder = tmp_path_factory.mktemp("package")
    for name in ("package.json", ".npmrc", "build.mjs", "src"):
        (shutil.copytree if name == "src" else shutil.copy)(PACKAGE / name, folder / name)
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=20000"]
    installed = subprocess.run([npm, "install", *options], cwd=folder, capture_output=True)
    if installed.returncode:
        missing("the build tools can't be installed from npm")
    subprocess.run([npm, "run", "build"], cwd=folder, check=True, capture_output=True)
    return folder / "dist"


def gzipped(file: Path) -> int:
    """The bytes of `gzip -9 FILE`."""
    return len(gzip.compress(file.read_bytes(), 9)) + len(file.name) + 1  # which gzip puts into its header


def test_the_committed_files_are_what_the_sources_make(built: Path) -> None:
    """Who changes a source runs `npm run build` in relay/browser and commits both."""
    for file in built.iterdir():
        assert (CLIENT.parent / file.name).read_text() == file.read_text(), f"{file.name} is not built anew"
    assert {file.name for file in built.iterdir()} == {file.name for file in CLIENT.parent.iterdir()}


def test_the_client_stays_below_7_kb_gzipped() -> None:
    """A page pays for the client at every first visit."""
    assert gzipped(CLIENT) <= 7 * 1024


def test_the_client_stays_below_5_5_kb_minified_and_gzipped() -> None:
    """Long names cost nothing there, so this is the code's own size."""
    assert gzipped(MINIFIED) <= 5632


@pytest.mark.parametrize("file", [CLIENT, MINIFIED], ids=lambda file: file.name)
def test_the_client_imports_nothing(file: Path) -> None:
    """One file to copy, and nobody else's code in the page."""
    assert not re.search(r"\bimport\b|\brequire\(", re.sub(r"//.*", "", file.read_text()))


def test_every_export_has_its_type() -> None:
    """An editor knows what the file offers, and offers nothing more."""
    types = (PACKAGE / "src" / "relay-client.d.ts").read_text()
    typed = set(re.findall(r"^export (?:declare )?(?:class|function) (\w+)", types, re.MULTILINE))
    (exported,) = re.findall(r"^export \{(.*?)\}", CLIENT.read_text(), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"\w+", exported)) == typed != set()
