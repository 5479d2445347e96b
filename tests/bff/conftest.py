"""The relay that these tests share."""

from tests.support.shared_relay import relay

__all__ = ["relay"]
