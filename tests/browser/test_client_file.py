"""The client's files and its npm package: small, typed, built from the sources beside them, and installable."""

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from relay import __version__
from tests.support.npm_package import PACKAGE, Project, new_project, project_with_package
from tests.support.scripted_relay import CLIENT

DIST = PACKAGE / "dist"
MANIFEST = json.loads((PACKAGE / "package.json").read_text())

MODULES = ["--target", "es2022", "--module", "nodenext"]
STRICT = """
import { createStream, fetchToken, keepSession, TokenError, type Stream } from 'scoped-relay';
import { RelayProvider, usePrice, usePriceStream, useRelay, type Price } from 'scoped-relay/react';

interface Quote { bid: string }
const stream: Stream = createStream({ getToken: fetchToken({ endpoint: 'prices' }), transports: ['subprotocol'] });
const leave: () => void = stream.subscribe<Quote>('prices.BTC-USD', { onUpdate: ({ data }) => data.bid.trim() });
stream.on('state', ({ state, code }) => (state === 'stopped' ? code?.toFixed() : leave()));
const end: () => void = keepSession({ onUser: (user) => user.name, onSignedOut: () => end() });
new TokenError('No.', { status: 401 }).status.toFixed();

export function Table() {
  const { prices, state, stale, error } = usePriceStream<Quote>(['BTC-USD'] as const, { interval_ms: 100 });
  const price: Price<Quote> | undefined = usePrice<Quote>('BTC-USD');
  useRelay().restart();
  return state === 'signedOut' || stale ? error?.code : (prices['BTC-USD']?.data.bid ?? price?.data.bid);
}
RelayProvider({ endpoint: 'prices', toChannel: (symbol) => `prices.${symbol}`, onSignedOut: () => {} });
// @ts-expect-error
createStream({});
// @ts-expect-error
usePriceStream('BTC-USD');
// @ts-expect-error
usePriceStream(['BTC-USD'], { interval_ms: 7 });
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that has the packed package."""
    return project_with_package(tmp_path_factory.mktemp("package"))


def gzipped(name: str) -> int:
    """The bytes of a built file after `gzip -9`."""
    return len(gzip.compress((DIST / name).read_bytes(), 9))


def test_the_committed_files_are_what_the_sources_make(tmp_path: Path) -> None:
    """A change of a source needs `npm install && npm run build` in relay/browser, and both are committed."""
    project = new_project(tmp_path)
    shutil.copy(PACKAGE / "build.mjs", project.folder)
    shutil.copytree(PACKAGE / "src", project.folder / "src")
    project.run("node", "build.mjs")
    built = {file.name: file.read_text() for file in (project.folder / "dist").iterdir()}
    assert built.keys() == {file.name for file in DIST.iterdir()}
    for name, text in built.items():
        assert (DIST / name).read_text() == text, f"{name} is older than its sources"


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("relay-client.js", 8192),
        ("relay-client.min.js", 5640),
        ("relay-session.min.js", 1024),
        ("relay-react.min.js", 1536),
    ],
)
def test_a_page_pays_little(name: str, limit: int) -> None:
    """A page pays for the client at every first visit: 8 KB readable, 5.5 KB minified, and small further parts."""
    assert gzipped(name) <= limit


@pytest.mark.parametrize("name", ["relay-client.js", "relay-client.min.js"])
def test_the_client_imports_nothing(name: str) -> None:
    """Nobody else's code in the page. The session's file comes beside the first token, and only in a browser."""
    text = re.sub(r"^//.*", "", (DIST / name).read_text(), flags=re.MULTILINE)
    own = f'("./{name.replace("client", "session")}")'
    assert re.findall(r"\bimport\b(\(.*?\))?|\brequire\(", text) == [own]


@pytest.mark.parametrize(
    ("types", "built"), [("relay-client.d.ts", "relay-client.js"), ("react.d.ts", "relay-react.js")]
)
def test_every_export_has_its_type(types: str, built: str) -> None:
    """An editor knows what a file offers, and offers nothing more."""
    text = (PACKAGE / "src" / types).read_text()
    typed = set(re.findall(r"^export (?:declare )?(?:class|function) (\w+)", text, re.MULTILINE))
    (exported,) = re.findall(r"^export \{(.*?)\}", (DIST / built).read_text(), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"\w+", exported)) == typed != set()


def test_the_package_has_the_relays_version() -> None:
    """A page and its relay come from the same release, and a user can tell which."""
    assert MANIFEST["version"] == __version__


@pytest.mark.parametrize("name", ["react.js", "../dist/relay-react.js", "../dist/relay-react.min.js"])
def test_the_hooks_are_for_the_client_side(name: str) -> None:
    """Next.js and other servers of React components ask for 'use client' before the first statement."""
    text = re.sub(r"^//.*\n", "", (PACKAGE / "src" / name).read_text(), flags=re.MULTILINE)
    assert re.match(r"""['"]use client['"];""", text)


def test_the_packed_package_installs_and_its_types_are_strict(project: Project) -> None:
    """`npm i ./scoped-relay-….tgz` gives both entries, with types that tsc checks strictly."""
    (project.folder / "page.ts").write_text(STRICT)
    project.run("tsc", "--strict", "--noEmit", "--skipDefaultLibCheck", *MODULES, "page.ts")
    assert (
        CLIENT.read_text() == (project.folder / "node_modules/scoped-relay/dist/relay-client.js").read_text()
    )


def test_the_sources_fit_their_types(project: Project) -> None:
    """What an editor checks of a file with `@ts-check`: code and types change together."""
    sources = [
        f"node_modules/scoped-relay/src/{name}.js" for name in ("relay-client", "relay-session", "react")
    ]
    strict = ["--strict", "--noImplicitAny", "false", "--skipDefaultLibCheck"]
    project.run("tsc", "--noEmit", "--allowJs", "--checkJs", *strict, *MODULES, *sources)


def test_the_packed_readme_has_no_dead_link(project: Project) -> None:
    """It names the files of the checkout, and links to what is in the package. The checkout's README is unchanged."""
    packed = project.folder / "node_modules" / "scoped-relay"
    text = (packed / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)", text)
    assert {link for link in links if not (packed / link).is_file()} == set() != set(links)
    assert "close code (`relay/core/README.md`)" in text
    assert (PACKAGE / "README.md").read_text().count("](../") > 20
    assert not (PACKAGE / ".README.md").exists()


def test_publint_finds_nothing(project: Project) -> None:
    """The package's files are where its package.json says, in the form that it says."""
    assert "All good" in project.run("publint", "--strict", "node_modules/scoped-relay")


def test_arethetypeswrong_finds_nothing(project: Project) -> None:
    """Types and code resolve alike. The package is ESM only, so the rules for `require` don't fit."""
    (tarball,) = project.folder.parent.glob("*.tgz")
    project.run("attw", "--profile", "esm-only", str(tarball))
