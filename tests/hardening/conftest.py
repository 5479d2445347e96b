"""The relay that these tests share."""

from tests.hardening.relays import relay

__all__ = ["relay"]
