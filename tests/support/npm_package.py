"""The npm package as its users get it: packed, installed beside exact versions of other packages, and bundled."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.chromium import missing

PACKAGE = Path(__file__).parents[2] / "relay" / "browser"
ESBUILD = "esbuild@0.28.2"
REACT = (
    *("react@19.3.1", "react-dom@19.3.1", "@types/react@19.3.3"),
    *("react-18@npm:react@18.3.1", "react-dom-18@npm:react-dom@18.3.1"),
)
CHECKS = ("typescript@5.9.3", "publint@0.3.25", "@arethetypeswrong/cli@0.18.5")


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with installed packages."""

    folder: Path

    def run(self, *command: str, env: dict[str, str] | None = None) -> str:
        """Run a command that is installed here, or node; return what it says."""
        name = self.folder / "node_modules" / ".bin" / command[0]
        found = str(name) if name.exists() else command[0]
        done = subprocess.run(
            [found, *command[1:]], cwd=self.folder, capture_output=True, text=True, timeout=120, env=env
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


def install(folder: Path, *packages: str) -> Project:
    """Install packages into a folder; skip, or fail in CI, where that can't be done."""
    npm = shutil.which("npm") or missing("npm is missing: apt-get install npm")
    (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
    # legacy-peer-deps: React 18 and 19 are in one folder
    options = ("--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--legacy-peer-deps")
    command = [npm, "install", *options, "--loglevel=error", "--fetch-retries=0", "--fetch-timeout=20000"]
    done = subprocess.run([*command, *packages], cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode:
        missing(f"npm could not install {' '.join(packages)}: {done.stderr.strip()[-200:]}")
    return Project(folder)


def pack(folder: Path) -> Path:
    """Run `npm pack` and return the tarball."""
    npm = shutil.which("npm") or missing("npm is missing: apt-get install npm")
    command = [npm, "pack", "--json", "--loglevel=error", "--pack-destination", str(folder)]
    done = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (tarball,) = folder.glob("scoped-relay-*.tgz")
    return tarball
