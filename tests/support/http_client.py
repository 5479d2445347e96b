"""The HTTP client of tests."""

from typing import Any

import httpx

PATIENCE_S = 60.0
"""Seconds that an answer may take. On a machine with many tests a relay may be slow for longer than httpx's own 5 s."""


def http_client(**options: Any) -> httpx.AsyncClient:
    """Return a client that takes nothing from the environment and loads no certificates, which takes 60 ms."""
    return httpx.AsyncClient(**{"trust_env": False, "verify": False, "timeout": PATIENCE_S} | options)
