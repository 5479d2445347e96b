"""/openapi.json is what the relay does: schemathesis makes requests of it, right and wrong, and compares answers."""

import subprocess
import sys
from pathlib import Path

from relay.ingest.openapi import DOCUMENT
from tests.support.http_client import http_client
from tests.support.publisher_socket import ALL_CHANNELS_KEY
from tests.support.relay_process import Relay


def test_the_document_names_every_publishers_route() -> None:
    """And no other: operators' routes are described in the README."""
    publishing = {"/v1/publish", "/v1/publish/batch", "/v1/ingest"}
    reading = {"/v1/subscribers", "/v1/channels/{channel}/value", "/v1/values"}
    assert DOCUMENT["paths"].keys() == publishing | reading


async def test_the_document_needs_no_key(relay: Relay) -> None:
    """It says nothing that the README does not."""
    async with http_client() as client:
        answer = await client.get(f"{relay.internal_url}/openapi.json")
    assert answer.status_code == 200
    assert answer.json()["openapi"] == "3.1.0"


def test_schemathesis_finds_no_difference(relay: Relay, tmp_path: Path) -> None:
    """No answer of another form, status or content type, and nothing malformed is taken."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{relay.internal_url}/openapi.json"),
            *("--header", f"Authorization: Bearer {ALL_CHANNELS_KEY}"),
            *("--checks", "all", "--max-examples", "25", "--max-time", "12"),
            # to a JSON schema 1.0 is an integer, and a GET without an upgrade is a right one
            *("--exclude-checks", "positive_data_acceptance"),
            *("--phases", "examples,coverage,fuzzing", "--generation-deterministic", "--no-color"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
