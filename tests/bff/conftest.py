"""The relay that these tests share."""

from tests.support.hardened_relays import relay

__all__ = ["relay"]
