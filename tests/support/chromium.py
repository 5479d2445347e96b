"""What the browser tests need, found or said to be missing.

Where it is missing they are skipped with the reason in the summary, so that a laptop without Chromium can run the
rest. With CI=true they fail instead: a skipped browser test there would pass for a tested page.
"""

import importlib.util
import os
import shutil
from typing import NoReturn

import pytest

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""Chromium in a container, without calls home."""

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def require_playwright() -> None:
    """Skip the calling module, or fail it in CI, where the playwright package is not installed."""
    if importlib.util.find_spec("playwright") is None:
        missing("the playwright package is missing: pip install playwright")


def find_chromium() -> str:
    """Return the path of a Chromium that is installed here; skip, or fail in CI, where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    return path or missing("Chromium is missing: apt-get install chromium")


def missing(reason: str) -> NoReturn:
    """Skip the calling module or fixture for `reason`, or fail it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)
