"""The command line as a fixture, as the tests of the keys have it."""

from tests.keys.conftest import relay

__all__ = ["relay"]
