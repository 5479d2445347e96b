"""Auth.js's cookies: the recorded ones, the real packages that mint more, and forgeries by hand."""

import json
import subprocess
from pathlib import Path
from typing import Any

from joserfc.jwe import JWERegistry, encrypt_compact
from joserfc.jwk import OctKey

from relay.sessions.authjs import V4, V5, AuthjsOptions, AuthjsVerifier, _thumbprint, _v4_key, _v5_key
from relay.sessions.cookies import SessionCookies, find_session
from tests.support.signed_sessions import REF_KEY

FOLDER = Path(__file__).parent
RECORDED: dict[str, Any] = json.loads((FOLDER / "minted_cookies.json").read_text())
"""Minted once by the real packages, with secrets that are used nowhere else."""

SECRET: str = RECORDED["secret"]
OTHER_SECRET: str = RECORDED["other_secret"]
MINTED_AT: int = RECORDED["minted_at"]

NAMES = (
    "__Secure-authjs.session-token",
    "authjs.session-token",
    "__Secure-next-auth.session-token",
    "next-auth.session-token",
)
COOKIES = SessionCookies(names=NAMES)
OPTIONS = AuthjsOptions(secrets=(SECRET,), cookies=NAMES, ref_key=REF_KEY)
VERIFIER = AuthjsVerifier(OPTIONS)
PAYLOAD: dict[str, Any] = {
    "sub": "user-7",
    "roles": ["trader"],
    "iat": MINTED_AT,
    "exp": MINTED_AT + 3600,
    "jti": "d2f7",
}


def recorded(name: str) -> str:
    """Return the session out of a recorded Cookie header."""
    found = find_session([RECORDED["cookies"][name]], COOKIES)
    assert isinstance(found, str), found
    return found


def encrypted(
    payload: dict[str, Any] | bytes = PAYLOAD,
    *,
    version: int = 5,
    secret: str = SECRET,
    salt: str = NAMES[0],
    **header: Any,
) -> str:
    """Encrypt a session as Auth.js does, with these changes to its header; None takes a member out."""
    key = _v5_key(secret, salt=salt) if version == 5 else _v4_key(secret)
    enc = V5 if version == 5 else V4
    own = {"alg": "dir", "enc": enc} | ({"kid": _thumbprint(key)} if version == 5 else {}) | header
    return encrypt_compact(
        {name: value for name, value in own.items() if value is not None},
        payload if isinstance(payload, bytes) else json.dumps(payload).encode(),
        OctKey.import_key(key),
        registry=JWERegistry(algorithms=["dir", enc, "DEF"], strict_check_header=False),
    )


def mint(folder: Path, *orders: dict[str, Any]) -> list[str]:
    """Have the real packages log a user in, and return the Cookie headers of that browser."""
    done = subprocess.run(
        ["node", str(FOLDER / "mint_cookies.mjs")],
        cwd=folder,
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    headers: list[str] = json.loads(done.stdout)
    return headers
