"""The npm packages that tests need, installed once; and our package as its users get it: packed, installed, bundled.

The others are in `.npm-tests` in the checkout, which git ignores.
"""

import faulthandler
import fcntl
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.chromium import missing
from tests.support.readme import ROOT

PACKAGE = ROOT / "relay" / "browser"
EXAMPLE = ROOT / "examples" / "react"
PACKAGES = {
    "@arethetypeswrong/cli": "0.18.5",
    "@auth/core": "0.41.3",
    "axe-core": "4.14",
    "next-auth": "4.24.15",
    "publint": "0.3.25",
    "react-18": "npm:react@18.3.1",
    "react-dom-18": "npm:react-dom@18.3.1",
    "ws": "8",
}
"""What no package.json of the checkout names: the tools that judge our package, and packages that must work with it."""

QUIET = ("--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts", "--loglevel=error")
_SHARED = ROOT / ".npm-tests"


@dataclass(frozen=True, slots=True)
class Project:
    """A folder in which node finds the packages of the tests, and what is installed in it."""

    folder: Path

    def run(self, *command: str, env: dict[str, str] | None = None) -> str:
        """Run a command of a package, or of this machine; return what it says."""
        found = _SHARED / "node_modules" / ".bin" / command[0]
        program = str(found) if found.exists() else command[0]
        done = subprocess.run(
            [program, *command[1:]], cwd=self.folder, capture_output=True, text=True, timeout=120, env=env
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def bundle(self, source: Path, *, react: int) -> str:
        """Return one script of `source` with everything that it imports, for React 18 or 19."""
        old = [f"--alias:{name}={name}-18" for name in ("react", "react-dom")] if react == 18 else []
        target = self.folder / source.name
        shutil.copy(source, target)
        options = ["--bundle", "--format=iife", "--jsx=automatic", *old]
        return self.run("esbuild", str(target), *options, '--define:process.env.NODE_ENV="development"')


def new_project(folder: Path) -> Project:
    """Return a project below `folder`; skip, or fail in CI, where the packages can't be installed."""
    (folder / "node_modules").symlink_to(installed() / "node_modules")
    project = folder / "project"
    project.mkdir()
    (project / "package.json").write_text('{"private": true, "type": "module"}')
    return Project(project)


def project_with_package(folder: Path) -> Project:
    """Return a project in which `npm install` has installed our packed package."""
    project = new_project(folder)
    project.run("npm", "install", "--offline", *QUIET, str(pack(folder)))
    return project


def pack(folder: Path) -> Path:
    """Run `npm pack` and return the tarball. A copy is packed, because npm changes the README for that time."""
    npm = shutil.which("npm") or missing("npm is missing: apt-get install npm")
    copy = shutil.copytree(PACKAGE, folder / "packed", ignore=shutil.ignore_patterns("node_modules"))
    command = [npm, "pack", "--json", "--loglevel=error", "--pack-destination", str(folder)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (tarball,) = folder.glob("scoped-relay-*.tgz")
    return tarball


def installed() -> Path:
    """Return the folder with the packages in its node_modules, and install them if another version is wanted.

    Skip, or fail in CI, where that can't be done.
    """
    npm = shutil.which("npm") or missing("npm is missing: apt-get install npm")
    wanted = dict(PACKAGES)
    for file in (PACKAGE / "package.json", EXAMPLE / "package.json"):
        manifest = json.loads(file.read_text())
        wanted |= manifest.get("dependencies", {}) | manifest["devDependencies"]
    del wanted["scoped-relay"]  # each project has its own
    manifest_text = json.dumps({"private": True, "dependencies": wanted}, indent=2)
    # pytest dumps the stacks of a test that seems stuck; this may take longer, and has a limit of its own
    faulthandler.cancel_dump_traceback_later()
    _SHARED.mkdir(exist_ok=True)
    done_mark = _SHARED / "installed"
    with (_SHARED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another of pytest's workers may want it too
        if not done_mark.exists() or done_mark.read_text() != manifest_text:
            done_mark.unlink(missing_ok=True)
            (_SHARED / "package.json").write_text(manifest_text)
            # legacy-peer-deps: React 18 and 19 are in one folder, and next-auth goes without Next.js
            options = (
                *("--legacy-peer-deps", "--no-package-lock", "--prefer-offline"),
                *("--fetch-retries=0", "--fetch-timeout=20000"),
            )
            command = [npm, "install", *QUIET, *options]
            done = subprocess.run(command, cwd=_SHARED, capture_output=True, text=True, timeout=300)
            if done.returncode:
                missing(f"npm could not install the packages of the tests: {done.stderr.strip()[-200:]}")
            done_mark.write_text(manifest_text)
    return _SHARED
