"""The relay.toml that tests, the demo and benchmarks start a relay with."""

from pathlib import Path

from relay.settings.load import load
from relay.settings.template import settings_text, write_folder

DIGEST = "0" * 64


def test_the_text_is_a_whole_settings_file(tmp_path: Path) -> None:
    """A relay can start with what the template writes, and the caller's own sections are in it."""
    text = settings_text(
        session_secret="s" * 32,
        public_url="https://bench.invalid",
        stream_url="wss://bench.invalid",
        grants={"bench": {"prices": ("prices.>",), "export": True}},
        publishers={"bench": (DIGEST, ("prices.>", "trades.>"))},
        sections='[endpoints.export]\nkind = "service"\nurl = "http://127.0.0.1/export"\n',
    )
    settings = load(write_folder(tmp_path, text))
    assert settings.allowed_origins == {"https://bench.invalid"}
    assert settings.listen.stream == "127.0.0.1:0"
    assert settings.grants["bench"] == {"prices": ("prices.>",), "export": True}
    assert settings.publishers["bench"].channels == ("prices.>", "trades.>")


def test_only_the_owner_can_read_the_folder(tmp_path: Path) -> None:
    """The settings and the signing key are secrets, also when the file is written again."""
    for _ in range(2):
        file = write_folder(tmp_path, 'secret = "x"')
    assert file.stat().st_mode & 0o077 == 0
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0
    assert len(list((tmp_path / "keys").glob("*.private.pem"))) == 1
