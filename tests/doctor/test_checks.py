"""Each check of the doctor: it finds what it is for, and a good deployment leaves all of them silent."""

import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.doctor import CHECKS
from relay.doctor.base import Check, ClockReading, EngineFacts
from relay.doctor.checks.limits import HIGHEST
from relay.keys.files import create_signing_key
from tests.support.certificates import DAY, Authority
from tests.support.doctor_deployment import Examine, change

URL = 'url = "https://app.example.com"'
ORIGINS = '"https://desk.example.com"'
TLS = 'tls = { cert = "server.pem", key = "server.key" }\n'
REF_KEY = "9f1c7e0b62d84a35f0c9d1e7846b2a5dce03917f5a8846d1b27e60c3f8a94d15"
SECRET = "Zq8vR3nT1xW6yB0kJ5mD7hF2sL9cP4gU8eA3iO6t"
STREAM = 'stream_url = "wss://stream.example.com"'


def test_a_good_deployment_is_left_alone(examined: Examine) -> None:
    """Nothing is found where nothing is wrong."""
    assert examined() == {}


def test_an_applications_origin_is_no_foreign_site(folder: Path, examined: Examine) -> None:
    """An installed application or browser extension has no site that could be another one."""
    change(folder, (ORIGINS, '"capacitor://localhost", "chrome-extension://abcdefghijklmnop"'))
    assert examined() == {}


BY_SETTINGS: list[tuple[str, list[tuple[str, str]], str]] = [
    ("query-transport", [('"subprotocol", "first', '"query", "first')], 'tokens.transports has "query"'),
    (
        "plain-origin",
        [(ORIGINS, '"http://desk.example.com"')],
        "public.allowed_origins has http://desk.example.com",
    ),
    (
        "plain-origin",
        [
            (TLS, ""),
            (STREAM, 'stream_url = "ws://stream.example.com"\ntrusted_proxies = ["192.0.2.7"]'),
        ],
        "public.stream_url has ws://stream.example.com",
    ),
    (
        "plain-origin",
        [
            (
                "[grants]",
                '[endpoints.export]\nkind = "service"\nurl = "http://reports.example.com/x"\n[grants]',
            )
        ],
        "endpoints.export.url has http://reports.example.com/x",
    ),
    ("embedded-cookies", [("[bff]", '[bff]\nsame_site = "none"')], 'bff.same_site is "none"'),
    (
        "foreign-origin",
        [(ORIGINS, '"https://app.example.org"')],
        "public.allowed_origins has https://app.example.org, which is not a part of example.com",
    ),
    (
        "foreign-origin",
        [("[bff]", '[csrf]\ntrusted_origins = ["https://192.0.2.1"]\n[bff]')],
        "csrf.trusted_origins has https://192.0.2.1, which is not a part of example.com",
    ),
    (
        "wide-proxies",
        [("[listen]", 'trusted_proxies = ["10.0.0.0/8", "0.0.0.0/0"]\n[listen]')],
        "public.trusted_proxies has 0.0.0.0/0",
    ),
    (
        "wide-proxies",
        [("[listen]", 'trusted_proxies = ["2a06:98c0::/29", "::/0"]\n[listen]')],
        "public.trusted_proxies has ::/0",
    ),
    (
        "no-tls",
        [(TLS, ""), ('"0.0.0.0:8001"', '"127.0.0.1:8001"')],
        "listen.http is 0.0.0.0:8000, without listen.tls and without public.trusted_proxies",
    ),
    (
        "proxy-unknown",
        [(TLS, ""), ("0.0.0.0", "127.0.0.1")],
        "the public listeners are on loopback and public.trusted_proxies is empty",
    ),
    (
        "internal-exposed",
        [(TLS, TLS + 'internal = "[::]:8002"\ninternal_tls = { cert = "server.pem", key = "server.key" }\n')],
        "listen.internal is [::]:8002, which means every address of this machine",
    ),
    (
        "internal-exposed",
        [
            (
                TLS,
                TLS
                + 'internal = "8.8.8.8:8002"\ninternal_tls = { cert = "server.pem", key = "server.key" }\n',
            )
        ],
        "listen.internal is 8.8.8.8:8002, a public address",
    ),
    (
        "internal-plain",
        [(TLS, TLS + 'internal = "10.1.2.3:8002"\n')],
        "listen.internal is 10.1.2.3:8002, without listen.internal_tls",
    ),
    (
        "wide-grant",
        [('channels = ["prices.>"]\n\n[grants]', 'channels = [">"]\n\n[grants]\nguest.prices = ["*.BTC"]\n')],
        "grants.guest.prices has *.BTC",
    ),
    (
        "wide-grant",
        [('4c"]\nchannels = ["prices.>"]', '4c"]\nchannels = [">"]')],
        "publishers.pricing.channels has >",
    ),
    ("shared-secret", [(SECRET, REF_KEY)], "session.signed.secret is the same as session.ref_key"),
    (
        "weak-secret",
        [(SECRET, "my-Secret-Zq8vR3nT1xW6yB0kJ5mD7hF2sL9cP")],
        "session.signed.secret contains a word or a keyboard run that attackers try first",
    ),
    ("weak-secret", [(REF_KEY, "7b12" * 16)], "session.ref_key repeats a few characters"),
    (
        "weak-secret",
        [(REF_KEY, "77b7bb77b77b7b7bb77b7b77bb7b7bb7b7")],
        "session.ref_key repeats a few characters",
    ),
    (
        "shared-secret",
        [
            (f'secret = "{SECRET}"', f'secret_base64 = "{REF_KEY}"'),
        ],
        "session.signed.secret_base64 is the same as session.ref_key",
    ),
    (
        "plain-jwks",
        [
            (
                "[tokens]",
                '[tokens]\njwks_private_http = true\njwks_url = "http://issuer:8000/.well-known/jwks.json"',
            )
        ],
        "tokens.jwks_url has http://issuer:8000/.well-known/jwks.json",
    ),
    (
        "plain-jwks",
        [
            (
                f'algorithm = "HS256", secret = "{SECRET}"',
                'algorithm = "RS256", jwks_private_http = true, jwks_url = "http://10.1.2.3/keys"',
            )
        ],
        "session.signed.jwks_url has http://10.1.2.3/keys",
    ),
    ("short-secret", [(REF_KEY, "80347915268097354612908475631029")], "session.ref_key has at most 106 bits"),
    (
        "long-cache",
        [("cache_s = 1.0", "cache_s = 5.0")],
        "session.upstream.cache_s is 5",
    ),
    ("long-life", [("[bff]", "[bff]\naccess_max_age_s = 86400")], "bff.access_max_age_s is 86400"),
    (
        "long-life",
        [('"/ws/prices"', '"/ws/prices"\nmax_age_s = 86400')],
        "endpoints.prices.max_age_s is 86400",
    ),
    (
        "short-revocations",
        [('"upstream"]', '"upstream"]\nmax_s = 86400')],
        "session.max_s is 86400, and bff.refresh_max_age_s is 604800",
    ),
    (
        "plain-backend",
        [('backend = "http://127.0.0.1:9000"', 'backend = "http://backend:9000"')],
        "bff.backend is http://backend:9000",
    ),
    (
        "proxy-whole-backend",
        [("[bff]", '[bff.proxy.routes."/"]\nmethods = ["GET", "POST"]\n[bff]')],
        'bff.proxy.routes has "/" with GET, POST',
    ),
    (
        "proxy-no-writes",
        [("[bff]", '[bff.proxy.routes."/users"]\n[bff]')],
        "no route of bff.proxy.routes has another method than GET",
    ),
    (
        "proxy-believed-header",
        [
            (
                "[bff]",
                '[bff.proxy]\nrequest_headers = ["X-User-Id"]\n'
                'routes = { "/orders" = { methods = ["POST"] } }\n[bff]',
            )
        ],
        "bff.proxy.request_headers has x-user-id",
    ),
    ("debug-log", [("[bff]", '[log]\nlevel = "debug"\n[bff]')], "log.level is debug"),
    *(
        (
            "high-limit",
            [("[bff]", f"[limits]\n{name} = {json.dumps(value)}\n[bff]")],
            f"limits.{name} is {value}",
        )
        for name, value in {
            **{name: highest + 1 for name, highest in HIGHEST.items()},
            "tokens_per_session": "11/second",
            "tokens_per_address": "100000000/day",
            "logins_per_address": "36060/hour",
            "logins_per_account": "601/minute",
            "logins_per_account_and_address": "101/minute",
            "proxy_per_session": "1001/second",
            "proxy_per_address": "600001/minute",
        }.items()
    ),
    (
        "engine-cluster",
        [("[listen]", '[engine]\nurl = "redis+cluster://a,b"\n\n[listen]')],
        "engine.url names a Redis Cluster",
    ),
]


@pytest.mark.parametrize(("name", "changes", "found"), BY_SETTINGS)
def test_settings_that_are_unwise(
    folder: Path, examined: Examine, name: str, changes: list[tuple[str, str]], found: str
) -> None:
    """One change to good settings, one finding, and it names the setting."""
    change(folder, *changes)
    assert examined() == {name: [found]}


@pytest.mark.parametrize(
    "changes",
    [
        [
            (ORIGINS, '"http://localhost:3000"'),
            (URL, 'url = "https://localhost"'),
            ('"https://app.', '"https://a.localhost'),
        ],
        [("app.example.com", "app.example.co.uk"), ("desk.example.com", "desk.example.co.uk")],
        [(TLS, 'internal = "localhost:8002"\n' + TLS)],
        [(TLS, ""), ("[listen]", 'trusted_proxies = ["192.0.2.7"]\n[listen]')],
    ],
)
def test_settings_that_only_look_unwise(
    folder: Path, examined: Examine, changes: list[tuple[str, str]]
) -> None:
    """Loopback, one site under a country's second level, a proxy that is known: nothing of that is found."""
    change(folder, *changes)
    found = examined()
    found.pop("certificate-names", None)
    found.pop("foreign-origin", None) if "localhost" in str(changes) else None
    assert found == {}


BY_MODE = [
    ("readable-settings", "relay.toml", 0o604, "has secrets and can be read by all users (mode 0604)"),
    ("readable-settings", "relay.toml", 0o620, "can be written by other users (mode 0620)"),
    ("keys-writable", "keys", 0o770, "can be written by other users (mode 0770)"),
    ("audit-exposed", "audit.jsonl", 0o640, "can be read or written by other users (mode 0640)"),
    ("audit-exposed", ".", 0o777, "can be written by other users (mode 0777), who can replace the log"),
    ("state-exposed", "relay-state.db", 0o660, "can be written by other users (mode 0660)"),
    ("certificate-key", "server.key", 0o604, "can be read or written by all users (mode 0604)"),
]


@pytest.mark.parametrize(("name", "path", "mode", "found"), BY_MODE)
def test_files_that_others_reach(
    folder: Path, examined: Examine, name: str, path: str, mode: int, found: str
) -> None:
    """One file with a mode that is too wide, one finding, and it names the file."""
    (folder / path).chmod(mode)
    assert examined() == {name: [f"{(folder / path).resolve()} {found}"]}


def sign_since(folder: Path, days: int) -> str:
    """Let the signing key have signed for so long, and return its kid."""
    [file] = (folder / "keys").glob("*.public.jwk.json")
    jwk = json.loads(file.read_text())
    file.write_text(json.dumps(jwk | {"signs_from": time.time() - days * 86_400}))
    return str(jwk["kid"])


def clock(ahead_s: float | None) -> ClockReading:
    """Return what a backend's clock says."""
    return ClockReading(setting="bff.backend", host="backend", ahead_s=ahead_s)


BY_MACHINE: dict[str, Callable[[Path, Examine], dict[str, list[str]]]] = {
    "audit-lost": lambda _folder, examined: examined(filesystem_of=lambda _path: "tmpfs"),
    "state-lost": lambda _folder, examined: examined(filesystem_of=lambda _path: "tmpfs"),
    "open-files": lambda _folder, examined: examined(open_files=1024),
    "clock-off": lambda _folder, examined: examined(clocks=[clock(90.0)]),
    "clock-unknown": lambda _folder, examined: examined(clocks=[clock(None)]),
    "engine-unusable": lambda _folder, examined: examined(engine=EngineFacts(fault="It does not answer.")),
    "engine-clock": lambda _folder, examined: examined(engine=EngineFacts(ahead_s=-0.2)),
    "engine-memory": lambda _folder, examined: examined(engine=EngineFacts(memory=64 << 20)),
    "engine-replicas": lambda _folder, examined: examined(engine=EngineFacts(replicas=1)),
    "engine-persistence": lambda _folder, examined: examined(engine=EngineFacts(is_persistent=False)),
    "old-signing-key": lambda folder, examined: (sign_since(folder, 200), examined())[1],
    "certificate-expiring": lambda folder, examined: (
        Authority(folder).issue("app.example.com", "*.example.com", ends=DAY),
        examined(),
    )[1],
    "certificate-names": lambda folder, examined: (Authority(folder).issue("127.0.0.1"), examined())[1],
}
"""The checks that neither a setting nor a file's mode makes fire, and what does."""


def provoke(name: str, folder: Path, examined: Examine) -> dict[str, list[str]]:
    """Make the deployment bad in the way that a check is for, and return what is found."""
    for known, changes, _ in BY_SETTINGS:
        if known == name:
            change(folder, *changes)
            return examined()
    for known, path, mode, _ in BY_MODE:
        if known == name:
            (folder / path).chmod(mode)
            return examined()
    return BY_MACHINE[name](folder, examined)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_can_fire(folder: Path, examined: Examine, check: Check) -> None:
    """Each check of the table finds something in a deployment that is bad in its way; a new check needs such a one."""
    assert check.name not in examined()
    assert provoke(check.name, folder, examined)[check.name]


def test_a_public_key_that_others_can_change(folder: Path, examined: Examine) -> None:
    """Who changes a public key has their own tokens accepted."""
    [public] = (folder / "keys").glob("*.public.jwk.json")
    public.chmod(0o666)
    assert examined() == {"keys-writable": [f"{public} can be written by other users (mode 0666)"]}


def test_an_audit_key_that_others_can_change(folder: Path, examined: Examine) -> None:
    """Who changes the public half has a log of their own pass for the relay's."""
    create_signing_key(folder / "audit-keys")
    [public] = (folder / "audit-keys").glob("*.public.jwk.json")
    public.chmod(0o666)
    assert examined() == {"keys-writable": [f"{public} can be written by other users (mode 0666)"]}


def test_a_settings_file_without_secrets_may_be_read(
    folder: Path, examined: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the secrets come from variables, the file is nobody's secret."""
    change(folder, (f'ref_key = "{REF_KEY}"\n', ""), (f'secret = "{SECRET}", ', ""))
    monkeypatch.setenv("RELAY_SESSION__REF_KEY", REF_KEY)
    monkeypatch.setenv("RELAY_SESSION__SIGNED__SECRET", SECRET)
    (folder / "relay.toml").chmod(0o644)
    assert examined() == {}
    assert examined(file=None) == {}, "there may be no file at all"


def test_sentinels_without_a_replica_are_found(examined: Examine) -> None:
    """A replica that is away now is promoted all the same when it is back and the master is gone."""
    found = examined(engine=EngineFacts(has_sentinels=True))
    assert found == {"engine-replicas": ["the engine has Sentinels, and accepts writes without a replica"]}
    assert examined(engine=EngineFacts(has_sentinels=True, needs_replicas=True)) == {}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("tmpfs", "memory (tmpfs)"),
        ("ramfs", "memory (ramfs)"),
        ("overlay", "a container's writable layer (overlay)"),
    ],
)
def test_files_that_do_not_last(folder: Path, examined: Examine, kind: str, words: str) -> None:
    """Log and state must outlive a restart."""
    assert examined(filesystem_of=lambda _path: kind) == {
        "audit-lost": [f"audit.path is {folder / 'audit.jsonl'}, in {words}"],
        "state-lost": [f"engine.state_path is {folder / 'relay-state.db'}, in {words}"],
    }


def test_an_audit_log_that_keeps_nothing(folder: Path, examined: Examine) -> None:
    """A device takes every record and forgets it."""
    change(folder, ("[bff]", '[audit]\npath = "/dev/null"\n[bff]'))
    assert examined() == {"audit-lost": ["audit.path is /dev/null, which stores nothing"]}


def test_a_deployment_before_its_first_start(folder: Path, examined: Examine) -> None:
    """Log and state are made at the first start; their absence is no finding."""
    (folder / "audit.jsonl").unlink()
    (folder / "relay-state.db").unlink()
    assert examined() == {}


def test_an_old_signing_key(folder: Path, examined: Examine) -> None:
    """A key that signs for more than half a year is found; one that only verifies by now is not."""
    kid = sign_since(folder, 200)
    assert examined() == {"old-signing-key": [f"the key {kid} has been signing for 200 days"]}
    create_signing_key(folder / "keys")
    assert examined() == {}


def test_a_stream_on_its_own_has_no_keys(folder: Path, examined: Examine) -> None:
    """Its keys come from the issuer, and their age is the issuer's business."""
    for file in (folder / "keys").iterdir():
        file.unlink()
    (folder / "keys").rmdir()
    change(folder, ("[tokens]", '[tokens]\njwks_url = "https://app.example.com/.well-known/jwks.json"'))
    assert examined() == {}


def test_too_few_open_files(folder: Path, examined: Examine) -> None:
    """Each connection is an open file, and there are others."""
    change(folder, ("[bff]", "[limits]\nconnections = 1000\n[bff]"))
    assert examined(open_files=1500) == {}
    [found] = examined(open_files=1024)["open-files"]
    assert (
        found
        == "a process on this machine may have 1024 open files, and limits.connections = 1000 needs 1500"
    )


@pytest.mark.parametrize(("ahead", "words"), [(90.0, "90 s ahead of"), (-2.4, "2 s behind the clock of")])
def test_a_clock_that_is_off(examined: Examine, ahead: float, words: str) -> None:
    """Both ways, with the server that it was compared with."""
    clocks = [ClockReading(setting="session.upstream.me", host="backend", ahead_s=ahead)]
    [found] = examined(clocks=clocks)["clock-off"]
    assert words in found
    assert found.endswith("backend (session.upstream.me)")


@pytest.mark.parametrize("ahead", [-1.0, 0.3, 1.0])
def test_a_clock_that_is_near(examined: Examine, ahead: float) -> None:
    """A second can be the way of the answer, and is no finding."""
    assert examined(clocks=[clock(ahead)]) == {}


def test_a_clock_that_nobody_knows(examined: Examine) -> None:
    """A server that does not answer is said, and is no failure of this deployment."""
    clocks = [clock(None)]
    assert examined(clocks=clocks) == {"clock-unknown": ["backend (bff.backend) did not tell its time"]}


def test_a_certificate_that_expires(folder: Path, examined: Examine) -> None:
    """Within two weeks from now."""
    Authority(folder).issue("app.example.com", "*.example.com", ends=13 * DAY)
    end = datetime.datetime.now(datetime.UTC) + 13 * DAY
    assert examined() == {"certificate-expiring": [f"{folder / 'server.pem'} expires on {end:%Y-%m-%d}"]}


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (("app.example.com",), ["stream.example.com (public.stream_url)"]),
        (
            ("example.com", "*.com"),
            ["app.example.com (public.url)", "stream.example.com (public.stream_url)"],
        ),
        (("127.0.0.1",), ["app.example.com (public.url)", "stream.example.com (public.stream_url)"]),
    ],
)
def test_a_certificate_for_other_names(
    folder: Path, examined: Examine, names: tuple[str, ...], missing: list[str]
) -> None:
    """Browsers compare the whole name, and let a star stand for one label."""
    Authority(folder).issue(*names)
    assert examined() == {
        "certificate-names": [f"{folder / 'server.pem'} is not for {host}" for host in missing]
    }
