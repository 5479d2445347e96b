"""The settings in the README are the relay's: examples are accepted, and every key has its one row."""

import os
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from relay.settings.load import Settings, load
from tests.support import readme

README = readme.read()
BLOCKS = [block for block in README.blocks if block.language == "toml"]


def filled_in(value: Any) -> Any:
    """Put something that passes for a secret, a hash or a name in the place of each "…"."""
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
    """Keep the settings of whoever runs the tests out of them."""
    for name in os.environ:
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)


def test_a_whole_settings_file_is_shown() -> None:
    """Somebody who writes the first relay.toml finds a complete one to start from."""
    assert any(is_whole(tomllib.loads(block.text)) for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.usefixtures("no_relay_variables")
def test_toml_blocks_are_settings(block: readme.Block, tmp_path: Path) -> None:
    """Every TOML block is a settings file that the relay takes, or a piece that fits into the whole one."""
    table = filled_in(tomllib.loads(block.text))
    if is_whole(table):
        path = tmp_path / "relay.toml"
        path.write_text(block.text.replace('"…"', '"' + "a" * 64 + '"'), "utf-8")
        load(path)
    else:
        whole = next(filter(is_whole, (filled_in(tomllib.loads(other.text)) for other in BLOCKS)))
        Settings(**laid_over(whole, table))


def setting_keys(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Yield each setting's dotted key and description; `*` in a key stands for a name that the user gives."""
    for name, field in model.model_fields.items():
        key = prefix + name
        kinds = [field.annotation]
        if get_origin(field.annotation) in (Union, types.UnionType):
            kinds = [kind for kind in get_args(field.annotation) if kind is not types.NoneType]
        for kind in kinds:
            values = sections_in(get_args(kind)[1]) if get_origin(kind) is dict else []
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from setting_keys(kind, f"{key}.")
            elif values:
                for value in values:
                    yield from setting_keys(value, f"{key}.*.")
            else:
                yield key, field.description


def sections_in(kind: Any) -> list[type[BaseModel]]:
    """Return the sections that a value may be: itself, or of an annotated union (endpoints by kind) each."""
    if get_origin(kind) is Annotated:
        return sections_in(get_args(kind)[0])
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def plain(key: str) -> str:
    """Put `*` for the parts of a documented key that are in upper case: names that the user gives."""
    parts = ["*" if part.isupper() else part for part in key.split(".")]
    while parts[-1] == "*":  # grants.ROLE.ENDPOINT is the one setting `grants`
        parts.pop()
    return ".".join(parts)


def test_settings_are_documented_as_they_are() -> None:
    """Each settings key, and no other, has a row in the table of keys, in the words of the code."""
    documented = {plain(key): row[-1] for key, row in readme.rows_by_first_cell(README.prose, "key").items()}
    described = dict(setting_keys())
    assert sorted(documented) == sorted(described)
    wrong = [key for key, text in described.items() if text not in (None, documented[key])]
    assert not wrong, wrong
