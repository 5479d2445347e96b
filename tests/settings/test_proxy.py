"""The section [bff.proxy]: what can't be meant, or would be dangerous, is refused before anything starts."""

from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError
from relay.settings.load import Settings, load
from tests.support.relay_process import make_relay

BACKEND = 'backend = "http://127.0.0.1:9"\n'


def read(folder: Path, section: str) -> Settings:
    """Read the settings of a relay with these lines in [bff]."""
    return load(make_relay(folder, bff=section).folder / "relay.toml")


def test_routes_have_good_defaults(tmp_path: Path) -> None:
    """A route without options takes reads, and nothing is added to the lists."""
    proxy = read(tmp_path, f'{BACKEND}[bff.proxy.routes."/users"]').bff.proxy
    assert proxy.routes["/users"].methods == ("GET",)
    assert (
        proxy.request_headers
        == proxy.response_headers
        == proxy.request_cookies
        == proxy.response_cookies
        == ()
    )


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ('[bff.proxy.routes."/users"]', "proxy.routes needs bff.backend"),
        (f'{BACKEND}[bff.proxy.routes."users"]', "must be a path of the backend"),
        (f'{BACKEND}[bff.proxy.routes."/users/"]', "must be a path of the backend"),
        (f'{BACKEND}[bff.proxy.routes."/a/../b"]', "must be a path of the backend"),
        (f'{BACKEND}[bff.proxy.routes."/a%2fb"]', "must be a path of the backend"),
        (f'{BACKEND}[bff.proxy.routes."/a"]\n[bff.proxy.routes."/A"]', "differ in their letter case"),
        (f'{BACKEND}[bff.proxy.routes."/a"]\nmethods = []', "must not be empty"),
        (f'{BACKEND}[bff.proxy.routes."/a"]\nmethods = ["CONNECT"]', "methods"),
        (f'{BACKEND}[bff.proxy.routes."/a"]\nstrip = ["a..b"]', "neither a field's name nor a path"),
        (f'{BACKEND}[bff.proxy]\nrequest_headers = ["Authorization"]', "must not have authorization"),
        (f'{BACKEND}[bff.proxy]\nrequest_headers = ["X-Forwarded-For"]', "must not have x-forwarded-for"),
        (f'{BACKEND}[bff.proxy]\nrequest_headers = ["x_user"]', "names with _ are never passed on"),
        (f'{BACKEND}[bff.proxy]\nresponse_headers = ["Set-Cookie"]', "must not have set-cookie"),
        (f'{BACKEND}[bff.proxy]\nrequest_cookies = ["access-token"]', "is a cookie of the session"),
        (f'{BACKEND}[bff.proxy]\nresponse_cookies = ["Refresh-Token"]', "is a cookie of the session"),
        (f'{BACKEND}[bff.proxy]\nrequest_cookies = ["a b"]', "must have 1 to 64"),
    ],
)
def test_what_can_not_be_meant_is_refused(tmp_path: Path, section: str, text: str) -> None:
    """With the setting's name and what to do. `relay config check` says the same."""
    with pytest.raises(ConfigurationError, match="proxy") as error:
        read(tmp_path, section)
    assert text in str(error.value)
