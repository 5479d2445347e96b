"""The issuer: a session's cookie in, a scoped token out."""
