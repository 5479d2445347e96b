"""A relay as browsers meet it in a deployment: over TLS, by its public addresses."""

from tests.support.tls_relay import authority, ca, secure

__all__ = ["authority", "ca", "secure"]
