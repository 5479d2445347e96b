"""Keys: the issuer's signing keys in files, their public side as a JWK Set, and publishers' Bearer keys.

Only the issuer needs private keys. Everybody else checks tokens with what `to_jwks` gives away.
"""
