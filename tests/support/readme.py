"""Read the project's Markdown as its reader does: blocks to paste, commands to type, tables, links.

The documents' promises are checked by machine (`tests/docs/test_readmes.py`), because a README becomes wrong in
silence: an option is renamed, a close code is added, and only the reader notices. The parsing here knows only as
much Markdown and shell as these documents need. What it can't read, it reports; it skips nothing.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

LABELS = {
    "README.md": "README",
    "relay/core": "wire protocol",
    "relay/browser": "browser client",
    "relay/client": "Python client",
    "relay/ingest": "publishing",
    "relay/issuer": "tokens",
    "relay/bff": "log-in",
    "relay/pages": "pages",
    "relay/sessions": "sessions",
    "relay/keys": "keys",
    "relay/verify": "other services",
    "relay/SECURITY.md": "security",
    "relay/audit": "audit log",
    "relay/audit/query": "questions to it",
    "relay/settings": "settings",
    "relay/cli": "commands",
    "relay/ops": "operating",
    "relay/engine": "engine",
    "relay/bench": "performance",
    "tests": "changing the code",
}
"""What the line of links calls each document, in its order. Any other room is called by its folder's name."""

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)$")
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(?P<end>\w+)\1")
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced code block: its `file`, `language` ("" if unnamed), first `line` (from 1) and `text`."""

    file: Path
    language: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}-{self.language or 'unnamed'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A Markdown file: its fenced `blocks`, and `prose`, the text around them."""

    blocks: tuple[Block, ...]
    prose: str


def read(path: Path = ROOT / "README.md") -> Document:
    """Split the file into code blocks and prose. A file that isn't there reads as empty."""
    blocks: list[Block] = []
    prose: list[str] = []
    lines = iter(enumerate(path.read_text("utf-8").splitlines() if path.exists() else [], start=1))
    for number, line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            prose.append(line)
            continue
        inside: list[str] = []
        for _, code in lines:
            if re.fullmatch(rf" *`{{{len(fence['ticks'])},}} *", code):
                break
            inside.append(code.removeprefix(fence["indent"]))
        language = (fence["info"].split() or [""])[0].lower()
        blocks.append(Block(file=path, language=language, line=number + 1, text="\n".join(inside) + "\n"))
    return Document(blocks=tuple(blocks), prose="\n".join(prose) + "\n")


def documents() -> list[Path]:
    """Return every Markdown file of the project, except in folders that begin with a dot and in npm's packages."""
    folders = (ROOT / folder for folder in ("relay", "tests", "examples"))
    found = (path for folder in folders for path in folder.rglob("*.md"))
    in_folders = sorted(path for path in found if "node_modules" not in path.parts)
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *in_folders]


def rooms() -> dict[Path, str]:
    """Return the documents that link to each other in their first lines, with their labels: README, rooms, SECURITY."""
    found = {
        file: key if (key := str(file.relative_to(ROOT))) in LABELS else str(file.parent.relative_to(ROOT))
        for file in documents()
        if file.name != "CHANGELOG.md" and file.parts[len(ROOT.parts)] != "examples"
    }
    order = list(LABELS)
    ordered = sorted(
        found.items(), key=lambda item: (order.index(item[1]) if item[1] in order else 99, item[1])
    )
    return {file: LABELS.get(key, Path(key).name) for file, key in ordered}


def anchors(prose: str) -> set[str]:
    """Return the names that `#…` links may have: GitHub's for each heading, and explicit ids."""
    found: set[str] = set(re.findall(r'<a (?:id|name)="([^"]+)"', prose))
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose, re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        name, count = slug, 0
        while name in found:
            count += 1
            name = f"{slug}-{count}"
        found.add(name)
    return found


def links(prose: str) -> Iterator[str]:
    """Yield the target of each link and image that does not lead to another site."""
    text = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", prose, flags=re.DOTALL)
    targets = re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", text)
    targets += re.findall(r"^\[[^]]+\]:\s*(\S+)", text, re.MULTILINE)
    targets += re.findall(r'(?:href|src|srcset)="([^"\s]+)"', text)
    for target in targets:
        if not re.match(r"[a-z][a-z0-9+.-]*:", target):
            yield target


def tables(prose: str) -> list[list[list[str]]]:
    """Return the tables as rows of cells. The first row is the heading; the line of dashes is left out."""
    found: list[list[list[str]]] = []
    before = ""
    for line in prose.splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            if not re.fullmatch(r"[\s|:-]+", line):
                found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
        before = line
    return found


def rows_by_first_cell(prose: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the tables whose first column has this heading, by their first cells, without backticks."""
    return {
        row[0].strip("`"): row
        for table in tables(prose)
        if table[0][0] == heading
        for row in table[1:]
        if row
    }


def in_backticks(text: str) -> list[str]:
    """Return what stands in single backticks."""
    return re.findall(r"`([^`]+)`", text)


def commands(script: str) -> list[list[str]]:
    """Return the simple commands of a shell script as words, without assignments and redirections.

    Knows quotes, comments, `\\` at a line's end, pipes and lists, `$(…)`, and here-documents (as data).

    Raises:
        ValueError: when a quote is never closed.
    """
    found: list[list[str]] = []
    pending = ""
    lines = iter(script.splitlines())
    for line in lines:
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        try:
            words = list(_lexer(pending))
        except ValueError:  # a quote that goes on in the next line
            pending += "\n"
            continue
        found += _split(words)
        heredoc = _HEREDOC.search(pending)
        if heredoc is not None:
            for body in lines:
                if body.strip() == heredoc["end"]:
                    break
        pending = ""
    if pending.strip():
        raise ValueError(f"a quote is not closed: {pending.strip()}")
    return found


def _lexer(text: str) -> shlex.shlex:
    text = re.sub(r"(?<=\s)\d(?=[<>])", "", text)  # the 2 of `2>`
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return lexer


def _split(words: list[str]) -> list[list[str]]:
    found: list[list[str]] = []
    current: list[str] = []
    around: list[list[str]] = []  # the commands in which an opened parenthesis stands
    redirected = False
    for word in words:
        if not word or not set(word) <= set("<>&|;()"):
            if not redirected:
                current.append(word)
                for inner in re.findall(r"\$\(([^()]*)\)", word):
                    found += commands(inner)
            redirected = False
            continue
        redirected = "(" not in word and ("<" in word or ">" in word)
        for sign in "" if redirected else word:
            if sign == "(":
                around.append(current)
                current = []
            elif sign == ")":
                found.append(current)
                current = around.pop() if around else []
            elif current:
                found.append(current)
                current = []
    return [bare for bare in map(_without_prefixes, [*found, current]) if bare]


def _without_prefixes(words: list[str]) -> list[str]:
    while words and (
        _ASSIGNMENT.match(words[0]) or words[0] in {"exec", "time", "sudo", "env", "!", "{", "do", "then"}
    ):
        words = words[1:]
    return words


def relay_arguments(command: list[str]) -> list[str] | None:
    """Return the arguments that `relay` gets from this command, or None if it starts something else."""
    match command:
        case [program, *rest] if Path(program).name == "relay":
            return rest
        case [python, "-m", "relay", *rest] if Path(python).name.startswith("python"):
            return rest
        case ["bash", "examples/demo", *rest] | ["examples/demo", *rest] | ["./examples/demo", *rest]:
            return ["demo", *rest]
        case ["runuser", "-u", _, "--", *rest]:
            return relay_arguments(rest)
    return None
