"""`relay doctor`: findings as lines, as a table and as JSON, and an exit code for scripts."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from relay.doctor import CHECKS
from tests.support.command_line import RelayCommand, relay
from tests.support.doctor_deployment import change
from tests.support.ports import free_ports
from tests.support.readme import ROOT

__all__ = ["relay"]


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in the deployment's folder, on a machine whose limits and file systems are good."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("relay.net.sockets.resource.getrlimit", lambda _kind: (65_536, 65_536))
    monkeypatch.setattr("relay.doctor.probes.filesystem_of", lambda _path: "ext4")


def test_a_deployment_without_findings_exits_with_0(relay: RelayCommand) -> None:
    """Exit code 0 and one line."""
    done = relay("doctor", "--offline")
    assert (done.code, done.out) == (0, f"All is well: {len(CHECKS)} checks found nothing.\n")


def test_findings_are_explained(folder: Path, relay: RelayCommand) -> None:
    """Severity, check, what was found, what it means, what to do; the severe first, and exit code 1."""
    change(folder, ('"subprotocol", "first', '"query", "first'), ("cache_s = 1.0", "cache_s = 5.0"))
    (folder / "relay.toml").chmod(0o644)
    done = relay("doctor", "--offline")
    assert done.code == 1
    lines = done.out.splitlines()
    assert [line.partition("\t")[0] for line in lines] == [
        "severity",
        "error",
        "warning",
        "note",
        "1 error, 1 warning, 1 note from " + f"{len(CHECKS)} checks.",
    ]
    query = next(check for check in CHECKS if check.name == "query-transport")
    found = 'tokens.transports has "query"'
    assert "\t".join(["warning", "query-transport", found, query.means, query.do]) in lines


def test_notes_alone_are_fine(folder: Path, relay: RelayCommand) -> None:
    """A note is worth reading, and no reason to stop a deployment."""
    change(folder, ("cache_s = 1.0", "cache_s = 5.0"))
    done = relay("doctor", "--offline")
    assert (done.code, done.out.splitlines()[-1]) == (0, f"1 note from {len(CHECKS)} checks.")


def test_the_json_has_the_same_findings_as_the_text(folder: Path, relay: RelayCommand) -> None:
    """One object, with the same findings."""
    assert json.loads(relay("doctor", "--offline", "--json").out) == {
        "fine": True,
        "checks": len(CHECKS),
        "findings": [],
    }
    change(folder, ('"subprotocol", "first', '"query", "first'))
    done = relay("doctor", "--offline", "--json")
    found = json.loads(done.out)
    assert (done.code, found["fine"]) == (1, False)
    [finding] = found["findings"]
    assert finding["check"] == "query-transport"
    assert set(finding) == {"check", "severity", "found", "means", "do"}


def test_others_are_asked_unless_told_not_to(folder: Path, relay: RelayCommand) -> None:
    """The backend of these settings is not there: a note says so, once for each setting that names it."""
    [port] = free_ports(1)
    change(folder, (":9000", f":{port}"))
    done = relay("doctor")
    assert done.code == 0
    assert done.out.count("note\tclock-unknown\t127.0.0.1 (") == 2


def test_settings_that_do_not_even_start(folder: Path, relay: RelayCommand) -> None:
    """Exit code 2 and the line of `relay config check`."""
    change(folder, ("[bff]", "[bff]\nnonsense = 1"))
    done = relay("doctor", "--offline")
    assert (done.code, done.out) == (2, "")
    assert "nonsense: unknown key" in done.err


@pytest.mark.parametrize("damage", ["server.pem", "keys"])
def test_files_that_can_not_be_used(folder: Path, relay: RelayCommand, damage: str) -> None:
    """A certificate or a keys folder that is missing: exit code 2 and one sentence."""
    (folder / damage).rename(folder / "away")
    done = relay("doctor", "--offline")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)


def test_no_secret_is_quoted(folder: Path, relay: RelayCommand) -> None:
    """A finding about a secret names its setting, and nothing of it."""
    secret = "my-secret-Zq8vR3nT1xW6yB0kJ5mD7hF2sL9cP"
    change(folder, ("Zq8vR3nT1xW6yB0kJ5mD7hF2sL9cP4gU8eA3iO6t", secret))
    for options in ((), ("--json",)):
        done = relay("doctor", "--offline", *options)
        assert "weak-secret" in done.out
        assert "Zq8v" not in done.out + done.err


def test_a_terminal_gets_a_block_for_each_finding(folder: Path) -> None:
    """It has the things that a finding says, each as a whole."""
    change(folder, ('"subprotocol", "first', '"query", "first'))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "relay", "doctor", "--offline", "--config", str(folder / "relay.toml")]
    environment = {**os.environ, "COLUMNS": "160"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65_536):
                shown += data
        except OSError:  # how Linux says that the other end of a terminal was closed
            pass
        os.close(ours)
        assert process.wait() == 1
    for heading in (b"severity", b"found", b"what it means", b"what to do", b"query-transport"):
        assert heading in shown
