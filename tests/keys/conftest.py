"""The command line as a fixture: one call, and what came out of it."""

from tests.support.command_line import relay

__all__ = ["relay"]
