"""Keys: the issuer's signing keys in files, their public parts as a JWK Set, and the API keys of publishers.

Only the issuer needs private keys. Every other process checks tokens with the JWK Set.
"""
