"""`relay token verify`: a verdict with the keys at hand, every reason in plain words, and an exit code for scripts."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from relay.core.tokens import Claims, SigningKey, mint
from relay.keys.files import create_signing_key, load_keys
from relay.keys.jwks import to_jwks
from tests.support.command_line import RelayCommand
from tests.support.relay_process import Relay, make_relay


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Relay:
    """A folder with settings and keys; the command runs there, without other settings."""
    for name in os.environ:
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return make_relay(tmp_path)


@pytest.fixture
def key(deployment: Relay) -> SigningKey:
    """The key that the deployment signs with."""
    signing = load_keys(deployment.folder / "keys").signing
    assert signing is not None
    return signing


@pytest.fixture
def claims(deployment: Relay) -> Claims:
    """What a good token says."""
    now = int(time.time())
    return Claims(
        issuer=deployment.url,
        audience=f"{deployment.stream_url}/ws/prices",
        subject="user-7",
        session_ref="0123456789abcdef",
        channels=("prices.>",),
        origin=deployment.url,
        jti="AAAAAAAAAAAAAAAAAAAAAA",
        issued_at=now,
        expires_at=now + 30,
    )


def reasons(out: str) -> list[str]:
    """Return the reasons that were given."""
    return [line[2:].partition(":")[0] for line in out.splitlines() if line.startswith("- ")]


def test_a_good_token_with_the_settings(
    deployment: Relay, key: SigningKey, claims: Claims, relay: RelayCommand
) -> None:
    """The settings have all that is needed; what only the running relay knows is said not to be checked."""
    done = relay("token", "verify", "-", stdin=mint(claims, key).encode() + b"\n")
    assert (done.code, done.err) == (0, "")
    first, *rest = done.out.splitlines()
    assert first == f'It would be accepted now, for "user-7" at "{claims.audience}".'
    assert [line for line in rest if "running relay" in line] == rest
    for more in (("--endpoint", "prices"), ("--origin", deployment.url), ("--config", "relay.toml")):
        assert relay("token", "verify", mint(claims, key), *more).code == 0


def test_every_reason_is_named_in_plain_words(deployment: Relay, claims: Claims, relay: RelayCommand) -> None:
    """All at once: what each means, and what it is about this token."""
    create_signing_key(deployment.folder / "others")
    stranger = load_keys(deployment.folder / "others").signing
    assert stranger is not None
    bad = replace(
        claims,
        issuer="https://evil.example",
        audience="wss://evil.example/ws",
        origin="https://evil.example",
        issued_at=claims.issued_at - 90,
        expires_at=claims.expires_at - 90,
    )
    done = relay("token", "verify", mint(bad, stranger))
    assert done.code == 1
    assert done.out.startswith("It would be refused:\n")
    expected = ["key_unknown", "expired", "issuer", "audience"]
    assert reasons(done.out) == [*(f"token_{name}" for name in expected), "origin_refused"]
    assert re.search(r"- token_expired: The token's exp has passed\. It expired 6\d s ago\.", done.out)
    assert (
        "- token_audience: The token is for another endpoint. It is for 'wss://evil.example/ws'." in done.out
    )


def test_a_payload_changed_after_signing_is_refused(
    deployment: Relay, key: SigningKey, claims: Claims, relay: RelayCommand
) -> None:
    """A token whose payload was changed after signing."""
    header, _, signature = mint(claims, key).split(".")
    _, payload, _ = mint(replace(claims, subject="admin"), key).split(".")
    done = relay("token", "verify", f"{header}.{payload}.{signature}")
    assert (done.code, reasons(done.out)) == (1, ["token_signature"])


def test_the_endpoint_by_name(
    deployment: Relay, key: SigningKey, claims: Claims, relay: RelayCommand
) -> None:
    """A token for one endpoint is refused at another; a name that the settings don't have is a mistake."""
    done = relay("token", "verify", mint(claims, key), "--endpoint", "trades")
    assert (done.code, reasons(done.out)) == (1, ["token_audience"])
    done = relay("token", "verify", mint(claims, key), "--endpoint", "orders")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("There is no [endpoints.orders]; the settings have prices, ")


def test_the_origin_is_compared_where_it_is_given(
    deployment: Relay, key: SigningKey, claims: Claims, relay: RelayCommand
) -> None:
    """Compared with who would connect, where that is said."""
    done = relay("token", "verify", mint(claims, key), "--origin", "")
    assert (done.code, reasons(done.out)) == (1, ["token_origin"])
    assert relay("token", "verify", mint(replace(claims, origin=""), key), "--origin", "").code == 0


def test_a_folder_of_keys(deployment: Relay, key: SigningKey, claims: Claims, relay: RelayCommand) -> None:
    """Without settings what was not named is not compared, and said so."""
    folder = str(deployment.folder / "keys")
    done = relay("token", "verify", mint(claims, key), "--keys-dir", folder)
    assert done.code == 0
    for name in ("audience", "issuer", "origin"):
        assert f"Not checked: The {name} was not compared: name the expected one with --{name}." in done.out
    named = ("--audience", claims.audience, "--issuer", claims.issuer, "--origin", claims.origin)
    done = relay("token", "verify", mint(claims, key), "--keys-dir", folder, *named)
    assert (done.code, done.out.count("Not checked:")) == (0, 1)
    wrong = ("--audience", claims.audience + "/", "--issuer", "x", "--origin", "")
    done = relay("token", "verify", mint(claims, key), "--keys-dir", folder, *wrong)
    assert reasons(done.out) == ["token_issuer", "token_audience", "token_origin"]


def test_keys_are_read_from_a_jwks_file(
    deployment: Relay, key: SigningKey, claims: Claims, relay: RelayCommand
) -> None:
    """The keys as a file, as somebody sent it."""
    path = deployment.folder / "jwks.json"
    path.write_text(json.dumps(to_jwks(load_keys(deployment.folder / "keys").verify)))
    assert relay("token", "verify", mint(claims, key), "--jwks", str(path)).code == 0


@pytest.fixture
def jwks_url(deployment: Relay) -> Iterator[str]:
    """An address that publishes the deployment's keys."""
    document = json.dumps(to_jwks(load_keys(deployment.folder / "keys").verify)).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/jwks.json" else 404)
            self.send_header("Content-Length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_arguments: Any) -> None:
            """Stay silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_keys_are_fetched_from_the_issuers_jwks(
    deployment: Relay, key: SigningKey, claims: Claims, jwks_url: str, relay: RelayCommand
) -> None:
    """The issuer's own publication, fetched."""
    assert relay("token", "verify", mint(claims, key), "--jwks", jwks_url).code == 0
    create_signing_key(deployment.folder / "others")
    stranger = load_keys(deployment.folder / "others").signing
    assert stranger is not None
    done = relay("token", "verify", mint(claims, stranger), "--jwks", jwks_url)
    assert (done.code, reasons(done.out)) == (1, ["token_key_unknown"])


def test_a_jwks_address_that_has_none(
    key: SigningKey, claims: Claims, jwks_url: str, relay: RelayCommand
) -> None:
    """Exit code 2 and one sentence: that says nothing about the token."""
    done = relay("token", "verify", mint(claims, key), "--jwks", f"{jwks_url}/none")
    assert (done.code, done.out) == (2, "")
    assert "answered 404" in done.err
    done = relay("token", "verify", mint(claims, key), "--jwks", "http://id.example.com/jwks.json")
    assert done.code == 2
    assert "must begin with https://" in done.err


def test_the_json_has_the_same_findings_as_the_text(
    deployment: Relay, key: SigningKey, claims: Claims, relay: RelayCommand
) -> None:
    """One object, with the same answers."""
    done = relay("token", "verify", mint(claims, key), "--json")
    found = json.loads(done.out)
    assert (found["accepted"], found["refusals"], len(found["unchecked"])) == (True, [], 1)
    done = relay("token", "verify", mint(replace(claims, audience="x"), key), "--json")
    found = json.loads(done.out)
    assert (done.code, found["accepted"]) == (1, False)
    [refusal] = found["refusals"]
    assert refusal["reason"] == "token_audience"
    assert "another endpoint" in refusal["detail"]


@pytest.mark.parametrize(
    "options",
    [
        ("--keys-dir", "keys", "--jwks", "jwks.json"),
        ("--keys-dir", "keys", "--config", "relay.toml"),
        ("--audience", "x"),
        ("--issuer", "x"),
        ("--keys-dir", "keys", "--endpoint", "prices"),
        ("--keys-dir", "none"),
        ("--config", "none.toml"),
    ],
)
def test_options_that_do_not_go_together(
    deployment: Relay, options: tuple[str, ...], relay: RelayCommand
) -> None:
    """One sentence, exit code 2: of two sources one would be ignored."""
    done = relay("token", "verify", "x.y.z", *options)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1


def test_a_variable_that_names_settings_is_no_option(
    deployment: Relay,
    key: SigningKey,
    claims: Claims,
    monkeypatch: pytest.MonkeyPatch,
    relay: RelayCommand,
) -> None:
    """RELAY_CONFIG stands in many shells; it does not forbid other keys."""
    monkeypatch.setenv("RELAY_CONFIG", str(deployment.folder / "relay.toml"))
    assert relay("token", "verify", mint(claims, key), "--keys-dir", "keys").code == 0


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"keys":1}', '{"keys":[],"keys":[]}', "\x00", " " * 70_000]
)
def test_a_bad_jwks_file(tmp_path: Path, relay: RelayCommand, content: str | None) -> None:
    """One line that names the file, exit code 2: the command was wrong, not the token."""
    path = tmp_path / "jwks.json"
    if content is not None:
        path.write_text(content)
    done = relay("token", "verify", "x", "--jwks", str(path))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert str(path) in done.err


@pytest.mark.parametrize("text", ["", "garbage", "a.b.c", "e30.e30.AAAA", "\x1b[2J", "A" * 5_000])
def test_text_that_is_no_token_is_refused_and_never_printed_raw(
    deployment: Relay, text: str, relay: RelayCommand
) -> None:
    """Refused, with a reason, and nothing of it reaches the terminal raw."""
    done = relay("token", "verify", "--", text)
    assert done.code == 1
    assert reasons(done.out)[0].startswith("token_")
    assert "\x1b" not in done.out
