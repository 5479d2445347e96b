"""relay-client.js as a file: small, without dependencies, and typed."""

import gzip
import re
import shutil
import subprocess
from pathlib import Path

from tests.support.chromium import missing
from tests.support.scripted_relay import CLIENT


def test_the_client_stays_below_7_kb_gzipped() -> None:
    """A page pays for the client at every first visit, for its comments too."""
    file_name = len(CLIENT.name) + 1  # which `gzip -9 relay-client.js` puts into its header
    assert len(gzip.compress(CLIENT.read_bytes(), 9)) + file_name <= 7 * 1024


def test_the_client_imports_nothing() -> None:
    """One file to copy, and nobody else's code in the page."""
    source = re.sub(r"/\*.*?\*/", "", CLIENT.read_text(), flags=re.DOTALL)
    assert not re.search(r"\bimport\b|\brequire\(", source)


def test_every_export_has_its_type() -> None:
    """An editor knows what the file offers, and offers nothing more."""
    exported = re.compile(r"^export (?:declare )?(?:class|function) (\w+)", re.MULTILINE)
    types = CLIENT.with_suffix(".d.ts").read_text()
    assert set(exported.findall(CLIENT.read_text())) == set(exported.findall(types)) != set()


def test_the_client_stays_below_5_5_kb_minified_and_gzipped(tmp_path: Path) -> None:
    """What a page pays that bundles it. Comments and long names cost nothing there, so this is the code's own size."""
    npm = shutil.which("npm") or missing("npm is missing: apt-get install npm")
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=20000"]
    installed = subprocess.run([npm, "install", *options, "esbuild@0.28"], cwd=tmp_path, capture_output=True)
    if installed.returncode:
        missing("esbuild can't be installed from npm")
    command = [str(tmp_path / "node_modules" / ".bin" / "esbuild"), str(CLIENT), "--minify", "--format=esm"]
    minified = subprocess.run(command, capture_output=True, check=True).stdout
    assert 0 < len(gzip.compress(minified, 9)) <= 5632
