"""Endpoints and grants of both kinds: what fits together is accepted, and each mistake is one sentence."""

import json
import os
from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError
from relay.core.tokens import SERVICE_SCOPE
from relay.server.options import gate_options, issuer_options, policy
from relay.settings.load import load
from tests.support.relay_process import REPORTS, make_relay

SERVICE = f'kind = "service"\nurl = "{REPORTS}"'


@pytest.fixture(autouse=True)
def only_our_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove RELAY_* variables of the environment that runs the tests."""
    for name in os.environ:
        if name.upper().startswith("RELAY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file with a service."""
    return make_relay(tmp_path).folder / "relay.toml"


def mistake(file: Path, old: str, new: str) -> str:
    """Replace a part of the file, and return the one line of the error of `load`."""
    text = file.read_text()
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, new))
    with pytest.raises(ConfigurationError) as refused:
        load(file)
    [line] = str(refused.value).split("\n")
    return line.removeprefix(f"{file}: ")


def test_sockets_and_services_are_told_apart(file: Path) -> None:
    """The stream serves the sockets, the issuer knows both kinds, and an endpoint without a kind is a socket."""
    settings = load(file)
    assert sorted(settings.sockets) == ["depth", "prices", "trades"]
    assert [(name, found.url) for name, found in settings.services.items()] == [("reports", REPORTS)]
    assert {found.name for found in gate_options(settings).endpoints.values()} == set(settings.sockets)
    terms = issuer_options(settings).endpoints["reports"]
    assert (terms.audience, terms.scope, terms.channels) == (REPORTS, SERVICE_SCOPE, ())
    assert policy(settings).sum_of(["trader"], "reports").any
    assert not policy(settings).sum_of(["guest", "nobody"], "reports").any


def test_a_socket_may_say_that_it_is_one(file: Path) -> None:
    """The default kind can be written into the file."""
    file.write_text(file.read_text().replace('path = "/ws/depth"', 'kind = "socket"\npath = "/ws/depth"'))
    assert load(file).sockets["depth"].kind == "socket"


def test_what_is_shown_can_be_read_again(file: Path) -> None:
    """`config show` prints each endpoint and grant as it was given."""
    shown = json.loads(load(file).model_dump_json())
    assert shown["endpoints"]["reports"] == {"kind": "service", "url": REPORTS}
    assert shown["endpoints"]["prices"]["path"] == "/ws/prices"
    assert shown["grants"]["trader"] | {"reports": True, "prices": ["prices.>"]} == shown["grants"]["trader"]


def test_a_service_can_come_from_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its settings can be a variable, as for any other section."""
    monkeypatch.setenv("RELAY_ENDPOINTS__BILLS__KIND", "service")
    monkeypatch.setenv("RELAY_ENDPOINTS__BILLS__URL", "http://bills:9000/")
    monkeypatch.setenv("RELAY_GRANTS__GUEST__BILLS", "true")
    settings = load(file)
    assert settings.services["bills"].url == "http://bills:9000/"
    assert settings.grants["guest"]["bills"] is True


@pytest.mark.parametrize(
    "url",
    [
        "reports.example.com/v1",
        "wss://reports.example.com/v1",
        "https://reports.example.com",
        "https:///v1",
        "https://reports.example.com/v1?x=1",
        "https://reports.example.com/v1#x",
        "https://reports.example.com/../v1",
        "https://reports.example.com/v1/.",
        "https://reports.example.com//v1",
        "https://reports.example.com/v%31",
        "https://reports.example.com/v1 ",
        "https://reports.example.com/v1\\n",
        "HTTPS://reports.example.com/v1",
        "https://Reports.example.com/v1",
        "https://reports.example.com:443/v1",
        "https://user@reports.example.com/v1",
        "https://reports.example.com/" + "a" * 201,
        "",
    ],
)
def test_a_url_has_one_spelling(file: Path, url: str) -> None:
    """The URL is compared byte for byte, so a URL that could be written in two ways is refused."""
    assert mistake(file, REPORTS, url).startswith("endpoints.reports.url: must ")


@pytest.mark.parametrize("url", ["https://a.example/", "http://reports:9000/v1/", "http://[::1]:9000/x"])
def test_a_service_s_url_may_be_inside_a_cluster(file: Path, url: str) -> None:
    """URLs with a port, an IPv6 address or a trailing slash are accepted."""
    file.write_text(file.read_text().replace(REPORTS, url))
    assert load(file).services["reports"].url == url


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (SERVICE, 'kind = "service"', "endpoints.reports.url: is missing"),
        (SERVICE, f'{SERVICE}\nchannels = ["a.>"]', "endpoints.reports: a service has no channels: leave it out"),
        (SERVICE, f'{SERVICE}\nmode = "latest"\npath = "/x"',
         "endpoints.reports: a service has no mode and no path: leave it out"),
        (SERVICE, f"{SERVICE}\nmax_age_s = 5", "endpoints.reports: a service has no max_age_s: leave it out"),
        (SERVICE, f"{SERVICE}\nhunter2 = 1", "endpoints.reports.hunter2: unknown key"),
        (SERVICE, f'url = "{REPORTS}"', 'endpoints.reports: url is only for kind = "service"'),
        (SERVICE, f'kind = "servce"\nurl = "{REPORTS}"', 'endpoints.reports: kind must be "socket" or "service"'),
        (SERVICE, f'kind = ["service"]\nurl = "{REPORTS}"', 'endpoints.reports: kind must be "socket" or "service"'),
        (SERVICE, f'{SERVICE}\n\n[endpoints.copy]\n{SERVICE}', "endpoints: two services have the same url"),
        ('path = "/ws/depth"', f'path = "/ws/depth"\nurl = "{REPORTS}"', 'endpoints.depth: url is only for kind = "s'),
        ("trader.reports = true", "trader.reports = false", "grants.trader.reports: must be true, or left out"),
        ("trader.reports = true", 'trader.reports = ["a.>"]', "grants.trader.reports: a service has no channels"),
        ("trader.reports = true", "trader.reports = []", "grants.trader.reports: a service has no channels"),
        ("trader.reports = true", 'trader.reports = { channels = ["a"] }', "grants.trader.reports: a service has no"),
        ("trader.reports = true", 'trader.reports = "a.>"', "grants.trader.reports: must be a list"),
        ("trader.reports = true", 'trader.reports = ["a..b"]', "grants.trader.reports.0: 'a..b' is not a channel"),
        ('trader.depth = ["depth.>"]', "trader.depth = true", "grants.trader.depth: true is only for services"),
        ('trader.depth = ["depth.>"]', "trader.depth = {}", "grants.trader.depth.channels: is missing"),
        ("[limits]", '[tokens]\ndefault_endpoint = "reports"\n\n[limits]',
         "tokens.default_endpoint: reports is a service; name a socket"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_one_line(file: Path, old: str, new: str, complaint: str) -> None:
    """The line names a setting or a grant of the other kind, and says what to do."""
    assert mistake(file, old, new).startswith(complaint)
