"""The settings in the documents are the relay's: examples are accepted, and every key has a meaning."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from relay.settings.load import Settings, load
from tests.support import readme, tables

BLOCKS = [
    block for file in readme.documents() for block in readme.read(file).blocks if block.language == "toml"
]


def filled_in(value: Any) -> Any:
    """Replace each "…" with a text that is valid as a secret, a hash or a name."""
    match value:
        case dict():
            return {key: filled_in(inner) for key, inner in value.items()}
        case list():
            return [filled_in(inner) for inner in value]
        case "…":
            return "a" * 64
    return value


def laid_over(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the tables and values of `top` in it."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        both_tables = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = laid_over(below, value) if both_tables and below is not None else value
    return merged


def is_whole(table: dict[str, Any]) -> bool:
    """Tell a complete settings file from a fragment of one: it has every section that has no default."""
    return all(name in table for name, field in Settings.model_fields.items() if field.is_required())


@pytest.fixture
def no_relay_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove RELAY_* variables of the calling shell."""
    for name in os.environ:
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)


def test_a_whole_settings_file_is_shown() -> None:
    """The documents show at least one complete settings file."""
    assert any(is_whole(tomllib.loads(block.text)) for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.usefixtures("no_relay_variables")
def test_toml_blocks_are_settings(block: readme.Block, tmp_path: Path) -> None:
    """Every TOML block is a settings file that the relay takes, or a part that fits into the complete one."""
    table = filled_in(tomllib.loads(block.text))
    if is_whole(table):
        path = tmp_path / "relay.toml"
        path.write_text(block.text.replace('"…"', '"' + "a" * 64 + '"'), "utf-8")
        load(path)
    else:
        whole = next(filter(is_whole, (filled_in(tomllib.loads(other.text)) for other in BLOCKS)))
        if "algorithm" in table.get("session", {}).get("signed", {}):
            del whole["session"]["signed"]  # one algorithm's keys are no use to another
        Settings(**laid_over(whole, table))


def test_every_setting_has_a_meaning() -> None:
    """Each key of the generated table of settings has a sentence that says what it is for."""
    wrong = [key for key, field in tables.settings_fields() if not field.description]
    assert not wrong, wrong
