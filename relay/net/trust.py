"""Whose certificates are believed when the relay, or one of its clients, calls somebody over https.

The public authorities, as everybody; and those that this machine's owner added to it, because a relay on an internal
name has its certificate from a company's own authority. What httpx does by itself is the first without the second,
and also, unless it is told not to, all else that the environment says: proxies and .netrc, which must not get to see
a credential.
"""

import ssl

import httpx


def certificates_for(url: str) -> ssl.SSLContext | bool:
    """Return what httpx takes as `verify` for calls to `url`.

    Loading certificates takes 60 ms, and a plain URL never needs them where redirects are not followed.
    """
    if not url.startswith("https://"):
        return False
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()  # of the system, or of SSL_CERT_FILE and SSL_CERT_DIR
    return context
