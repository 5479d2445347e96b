"""relay-client.js as a file: small, without dependencies, and typed."""

import gzip
import re

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
