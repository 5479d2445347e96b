"""The documents are true: their blocks work, every command and close code is in them, their links lead somewhere."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from relay.core.closes import CloseCode
from tests.support import readme, tables
from tests.support.command_line import refusal

DOCUMENTS = {file: readme.read(file) for file in readme.documents()}
BLOCKS = [block for document in DOCUMENTS.values() for block in document.blocks]
LANGUAGES = {"bash", "toml", "python", "js", "jsx", "ts", "tsx", "json", "html", "http", "text"}
"""Languages that a block may name. `text` is output. The others are checked below, or the name only colours them."""


def blocks(*languages: str) -> list[readme.Block]:
    """Return the documents' blocks in one of these languages."""
    return [block for block in BLOCKS if block.language in languages]


MAX_README_LINES = 250
MAX_README_BYTES = 16 * 1024
"""What a newcomer reads before the first try. The reference is in the rooms."""


def test_the_readme_stays_short() -> None:
    """The first document has at most 250 lines and 16 KB, and the two commands on its first screen."""
    text = (readme.ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= MAX_README_LINES
    assert len(text.encode()) <= MAX_README_BYTES
    first_screen = text.splitlines()[:25]
    assert any(line.startswith("bash examples/demo") for line in first_screen)
    assert any(line.startswith("bash tests/run") for line in first_screen)


# --- blocks ---------------------------------------------------------------------------------------


def test_every_block_names_its_language() -> None:
    """Each block has a known language, because a block without one would not be checked."""
    wrong = [str(block) for block in BLOCKS if block.language not in LANGUAGES]
    assert not wrong, wrong


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_shell_blocks_parse(block: readme.Block) -> None:
    """Every shell block is valid Bash."""
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_shell_blocks_name_what_exists(block: readme.Block) -> None:
    """Every `relay` command of a block exists with its options, and so does every script that it runs."""
    for command in readme.commands(block.text):
        arguments = readme.relay_arguments(command)
        if arguments is not None:
            assert refusal(arguments) is None, " ".join(command)
        elif command[0] in {"bash", "sh", "source"} and len(command) > 1 and not command[1].startswith("-"):
            assert (readme.ROOT / command[1]).is_file(), " ".join(command)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_blocks_compile(block: readme.Block) -> None:
    """Every Python block compiles, and what it imports from the relay exists."""
    tree = compile(block.text, str(block), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "relay":
            module = importlib.import_module(node.module or "")
            wrong = [name.name for name in node.names if not hasattr(module, name.name)]
            assert not wrong, wrong


@pytest.mark.parametrize("block", blocks("js"), ids=str)
def test_javascript_blocks_parse(block: readme.Block, tmp_path: Path) -> None:
    """Node reads every JavaScript block as a module."""
    node = shutil.which("node")
    if node is None:
        assert os.environ.get("CI") != "true", "node is missing; tests/run installs it as root on Debian"
        pytest.skip("node is not installed")
    path = tmp_path / "block.mjs"
    path.write_text(block.text, "utf-8")
    done = subprocess.run([node, "--check", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_json_blocks_parse() -> None:
    """Every JSON block is JSON, or one JSON value per line."""
    for block in blocks("json"):
        try:
            json.loads(block.text)
        except ValueError:
            for line in block.text.splitlines():
                json.loads(line)


# --- the command line -----------------------------------------------------------------------------


def test_every_command_says_what_it_does() -> None:
    """Each command has a first sentence in its help, because the table of commands is made of these."""
    rows = readme.rows_by_first_cell(readme.read(readme.ROOT / "relay/cli/README.md").prose, "command")
    assert "relay audit verify" in rows
    wrong = [name for name, row in rows.items() if not row[-1]]
    assert not wrong, wrong


# --- close codes ----------------------------------------------------------------------------------


def test_every_close_code_is_documented() -> None:
    """Each close code is in the table of the wire protocol."""
    protocol = readme.read(readme.ROOT / "relay/core/README.md")
    first_cells = " ".join(row[0] for table in readme.tables(protocol.prose) for row in table)
    wrong = [code for code in CloseCode if not re.search(rf"\b{code.value}\b", first_cells)]
    assert not wrong, wrong


# --- generated parts ------------------------------------------------------------------------------


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(readme.ROOT)))
def test_generated_parts_are_the_codes(file: Path) -> None:
    """Tables of reasons, actions, settings and checks, and lines of links, are what the code makes of them."""
    assert file.read_text("utf-8") == tables.generated(file), "run python -m tests.support.tables --write"


def test_outdated_parts_are_named_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command names a document whose table differs from the code, and with --write it corrects the table."""
    file = tmp_path / "README.md"
    file.write_text("Before.\n<!-- generated: anomalies -->\nold\n<!-- /generated -->\nAfter.\n")
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "documents", lambda: [file])
    assert tables.main([]) == 1
    assert capsys.readouterr().out == "README.md\n"
    assert tables.main(["--write"]) == 0
    assert tables.main([]) == 0
    text = file.read_text()
    assert "old" not in text
    assert "| `replay` |" in text
    assert text.startswith("Before.\n")
    assert text.endswith("<!-- /generated -->\nAfter.\n")


def test_every_generated_part_is_in_one_document() -> None:
    """Each generated table stands in exactly one document, the one of the room that owns it."""
    for name in tables.PARTS.keys() - {"rooms"}:
        assert [file for file in DOCUMENTS if name in tables.parts_in(file)] != [], name
        assert len([file for file in DOCUMENTS if name in tables.parts_in(file)]) == 1, name


def test_every_room_links_to_the_others() -> None:
    """Each room's README has the line of links to the others among its first lines."""
    for file in readme.rooms():
        if file != readme.ROOT / "README.md":
            head = file.read_text("utf-8").splitlines()[:6]
            assert "<!-- generated: rooms -->" in head, file


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(readme.ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    """Every relative link names a file of the project, and every anchor a heading."""
    broken = []
    for target in readme.links(DOCUMENTS[file].prose):
        path, _, anchor = target.partition("#")
        linked = (file.parent / path).resolve() if path else file
        prose = readme.read(linked).prose if linked.suffix == ".md" else ""
        if not linked.exists() or (anchor and anchor not in readme.anchors(prose)):
            broken.append(target)
    assert not broken, broken


def test_the_readme_links_to_every_room() -> None:
    """A reader who opens the README first finds every room's README from its first lines."""
    linked = {target.partition("#")[0] for target in readme.links(DOCUMENTS[readme.ROOT / "README.md"].prose)}
    missing = [
        file
        for file in map(str, (file.relative_to(readme.ROOT) for file in readme.rooms()))
        if file not in linked
    ]
    assert missing in ([], ["README.md"])


# --- the checks themselves ------------------------------------------------------------------------


def test_commands_are_found_in_a_script() -> None:
    """Commands are found in pipes and lists, after assignments, beside redirections, comments and here-documents."""
    script = """
        A=1 relay demo --port 0 > log 2>&1 &   # relay comment
        cat <<'END' | relay publish x
        relay not a command
        END
        curl -H "Authorization: Bearer $(relay keys new)" \\
             http://127.0.0.1:8002/ && .venv/bin/relay listen 'a b'; bash examples/demo $(relay token) 1
    """
    found = [readme.relay_arguments(command) for command in readme.commands(script)]
    assert [arguments for arguments in found if arguments is not None] == [
        ["demo", "--port", "0"],
        ["publish", "x"],
        ["keys", "new"],
        ["listen", "a b"],
        ["token"],
        ["demo", "$", "1"],
    ]


@pytest.mark.parametrize(
    "arguments", [["dmeo"], ["demo", "--prot", "1"], ["demo", "--port"], ["config", "show", "extra"]]
)
def test_wrong_commands_are_refused(arguments: list[str]) -> None:
    """The check of commands refuses a wrong one."""
    assert refusal(arguments) is not None


def test_right_commands_are_accepted() -> None:
    """The check of commands accepts what the command line accepts."""
    assert refusal(["demo", "--port", "8000", "--stream-port=8001"]) is None
    assert refusal(["demo", "--help"]) is None
