"""A certificate that can't be used is one sentence, from `relay config check` and from `relay serve` alike."""

import datetime
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relay.cli import main
from relay.core.errors import ConfigurationError
from relay.net.tls import ServerTls, TlsFiles
from relay.server.certificates import listener_tls
from relay.settings.load import load
from tests.support.certificates import DAY, Authority, Pair
from tests.support.relay_process import Relay

Check = Callable[[], tuple[int, str]]


@pytest.fixture
def check(secure: Relay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run `relay config check`; gives the exit code and what it said."""

    def run() -> tuple[int, str]:
        for name, value in secure.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(
            sys, "argv", ["relay", "config", "check", "-c", str(secure.folder / "relay.toml")]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), (out + err).strip()

    return run


def test_good_files_are_fine(check: Check) -> None:
    """A certificate with its chain and its key."""
    code, said = check()
    assert (code, "fine." in said) == (0, True)


def swap_keys(pair: Pair, authority: Authority) -> None:
    authority.issue(file="other").key.rename(pair.key)


def lose(pair: Pair, authority: Authority) -> None:
    pair.cert.unlink()


def lose_key(pair: Pair, authority: Authority) -> None:
    pair.key.unlink()


def make_folder(pair: Pair, authority: Authority) -> None:
    pair.key.unlink()
    pair.key.mkdir()


def garble(pair: Pair, authority: Authority) -> None:
    pair.cert.write_text("no certificate")


def garble_key(pair: Pair, authority: Authority) -> None:
    pair.key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


def put_the_chain_first(pair: Pair, authority: Authority) -> None:
    pair.cert.write_bytes(authority.path.read_bytes() + pair.cert.read_bytes())


def encrypt(pair: Pair, authority: Authority) -> None:
    authority.issue(password=b"open sesame")


def expire(pair: Pair, authority: Authority) -> None:
    authority.issue(begins=-30 * DAY, ends=-datetime.timedelta(minutes=1))


def come_too_early(pair: Pair, authority: Authority) -> None:
    authority.issue(begins=DAY)


def use_another_kind(pair: Pair, authority: Authority) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def grow(pair: Pair, authority: Authority) -> None:
    pair.cert.write_bytes(b"x" * 2_000_000)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lose, "listen.tls.cert: {cert} can't be read: No such file or directory."),
        (lose_key, "listen.tls.key: {key} can't be read: No such file or directory."),
        (make_folder, "listen.tls.key: {key} can't be read: Is a directory."),
        (garble, "listen.tls.cert: {cert} holds no certificate in PEM form."),
        (garble_key, "listen.tls.key: {key} holds no private key in PEM form."),
        (swap_keys, "listen.tls.key: {key} is not the key of the certificate in {cert}."),
        (use_another_kind, "listen.tls.key: {key} is not the key of the certificate in {cert}."),
        (put_the_chain_first, "The certificate must come first in its file, and its chain after it."),
        (encrypt, "listen.tls.key: {key} is encrypted, and"),
        (expire, "listen.tls.cert: {cert} expired on "),
        (come_too_early, "Is this machine's clock right?"),
        (grow, "listen.tls.cert: {cert} is too large"),
    ],
)
def test_bad_files_are_one_line(
    check: Check,
    authority: Authority,
    tmp_path: Path,
    damage: Callable[[Pair, Authority], None],
    sentence: str,
) -> None:
    """Exit code 2 and one sentence that names the setting and the file."""
    pair = Pair(cert=tmp_path / "server.pem", key=tmp_path / "server.key")
    damage(pair, authority)
    code, said = check()
    assert code == 2
    assert len(said.splitlines()) == 1
    assert sentence.format(cert=pair.cert, key=pair.key) in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_key_that_may_not_be_read(check: Check, tmp_path: Path) -> None:
    """The key is another user's."""
    (tmp_path / "server.key").chmod(0)
    assert check()[1].endswith("server.key can't be read: Permission denied.")


def test_the_internal_listener_has_its_own(check: Check, secure: Relay) -> None:
    """Its files are checked too, under their own name."""
    secure.environment["RELAY_LISTEN__INTERNAL_TLS"] = '{"cert": "/nowhere.pem", "key": "/nowhere.key"}'
    assert check() == (2, "listen.internal_tls.cert: /nowhere.pem can't be read: No such file or directory.")


@pytest.mark.parametrize(("name", "url"), [("URL", "http://a.example"), ("STREAM_URL", "ws://a.example")])
def test_plain_addresses_do_not_go_with_tls(check: Check, secure: Relay, name: str, url: str) -> None:
    """Browsers would be sent to http:// or ws:// addresses that nobody answers."""
    secure.environment[f"RELAY_PUBLIC__{name}"] = url
    code, said = check()
    assert code == 2
    assert f"public.{name.lower()}: begins with {url.partition('/')[0]}//" in said


def test_paths_are_meant_from_the_settings_folder(
    check: Check, secure: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path does not depend on where the command runs."""
    secure.environment["RELAY_LISTEN__TLS"] = '{"cert": "server.pem", "key": "server.key"}'
    monkeypatch.chdir("/")
    assert check()[0] == 0


@pytest.mark.parametrize(("url", "strict"), [("https://localhost", False), ("https://app.example.com", True)])
def test_hsts_is_not_for_a_developers_machine(
    secure: Relay, monkeypatch: pytest.MonkeyPatch, url: str, *, strict: bool
) -> None:
    """Browsers keep HSTS for a name on all its ports; of localhost other servers there need the plain ones."""
    for name, value in {**secure.environment, "RELAY_PUBLIC__URL": url}.items():
        monkeypatch.setenv(name, value)
    assert listener_tls(load(secure.folder / "relay.toml")).strict is strict


def test_a_weak_key_is_openssls_to_refuse(authority: Authority, tmp_path: Path) -> None:
    """What only OpenSSL knows to refuse comes as its reason, in one sentence."""
    pair = authority.issue(weak=True)
    with pytest.raises(
        ConfigurationError, match=r"^listen\.tls: OpenSSL does not take .*EE_KEY_TOO_SMALL\.$"
    ):
        ServerTls(TlsFiles(setting="listen.tls", cert=pair.cert, key=pair.key))
