"""Sessions of identity providers, in their documented form, with the settings of examples/sessions/README.md.

The settings are read from the document, so that it can't become wrong. Only the place of the keys is replaced.
"""

import re
import secrets
import time
import tomllib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import joserfc.jwk
import joserfc.jwt
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.support.backends import running_backend
from tests.support.readme import ROOT, read
from tests.support.relay_process import Relay, make_relay, with_session

DOCUMENT = ROOT / "examples/sessions/README.md"
NOW = int(time.time())
TIMES = {
    "iat": NOW - 60,
    "exp": NOW + 3600,
}  # the suite may come here a quarter of an hour after it read this
RSA_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
EC_KEYS = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
LEGACY_SECRET = "oR8vZk3nT1xW6yB0kJ5mD7hF2sL9cP4gU8eA3iO6tQwErTyUiOpAsDfGhJkLzXcVbNm1234=="
USER = "5be86359-073c-434b-ad2d-a3932222dabe"


@dataclass(frozen=True, kw_only=True)
class Provider:
    """What a provider publishes and signs: `others` are tokens that are no sessions."""

    heading: str
    block: int
    keys: list[dict[str, Any]]
    header: dict[str, Any]
    claims: dict[str, Any]
    subject: str
    others: tuple[dict[str, Any], ...]
    private: Any

    def by_pyjwt(self, claims: dict[str, Any]) -> str:
        """Sign a token with PyJWT."""
        headers = {name: value for name, value in self.header.items() if name != "alg"}
        return jwt.encode(claims, self.private, algorithm=self.header["alg"], headers={"typ": None} | headers)

    def by_joserfc(self, claims: dict[str, Any]) -> str:
        """Sign a token with joserfc."""
        key: Any
        if isinstance(self.private, str):
            key = joserfc.jwk.OctKey.import_key(self.private)
        else:
            pem = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            key = joserfc.jwk.import_key(pem, "RSA" if self.private in RSA_KEYS else "EC")
        return joserfc.jwt.encode(self.header, claims, key)


def published(key: Any, **members: Any) -> dict[str, Any]:
    """Return a public JWK without the members that PyJWT adds."""
    algorithm: Any = RSAAlgorithm if key in RSA_KEYS else ECAlgorithm
    document = algorithm.to_jwk(key.public_key(), as_dict=True)
    return {name: value for name, value in document.items() if name != "key_ops"} | members


def chain() -> dict[str, Any]:
    """Return the members of a certificate, in a form that nobody here reads."""
    return {"x5c": ["MIIC" + "A" * 996], "x5t": "A" * 27}


KEYCLOAK_KID, KEYCLOAK_ENC = (secrets.token_urlsafe(32) for _ in range(2))
AUTH0_KIDS = [secrets.token_urlsafe(16)[:21] for _ in range(2)]
AZURE_KID = secrets.token_urlsafe(20)
COGNITO_KIDS = [f"{secrets.token_urlsafe(32)}=" for _ in range(2)]
SUPABASE_KIDS = [str(uuid.uuid4()) for _ in range(2)]
TENANT = "8f7c1d2e-3b4a-4c5d-9e8f-7a6b5c4d3e2f"
POOL = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_aB3dE5fG7"

KEYCLOAK_CLAIMS = TIMES | {
    "auth_time": NOW - 3600,
    "jti": f"onrtac:{uuid.uuid4()}",
    "iss": "https://id.example.com/realms/shop",
    "aud": "account",
    "sub": USER,
    "typ": "Bearer",
    "azp": "shop-web",
    "sid": str(uuid.uuid4()),
    "acr": "1",
    "allowed-origins": ["https://app.example.com"],
    "realm_access": {"roles": ["offline_access", "trader", "default-roles-shop"]},
    "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
    "scope": "openid profile email",
    "email_verified": True,
    "preferred_username": "demo",
}
AUTH0_CLAIMS = TIMES | {
    "https://shop.example.com/roles": ["trader"],
    "https://shop.example.com/sid": secrets.token_urlsafe(24),
    "iss": "https://shop.eu.auth0.com/",
    "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
    "aud": ["https://api.shop.example.com", "https://shop.eu.auth0.com/userinfo"],
    "scope": "openid profile read:prices",
    "azp": "my_client_id",
    "permissions": ["read:prices"],
}
AZURE_CLAIMS = TIMES | {
    "aud": "1b2c3d4e-5f60-4718-8a9b-0c1d2e3f4a5b",
    "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
    "nbf": NOW - 60,
    "aio": "AXQAi/8TAAAA",
    "azp": "6731de76-14a6-49ae-97bc-6eba6914391e",
    "azpacr": "1",
    "name": "A User",
    "oid": USER,
    "preferred_username": "user@shop.example.com",
    "rh": "0.AAA.",
    "roles": ["trader"],
    "scp": "access",
    "sid": str(uuid.uuid4()),
    "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
    "tid": TENANT,
    "uti": secrets.token_urlsafe(16),
    "ver": "2.0",
}
COGNITO_CLAIMS = TIMES | {
    "sub": USER,
    "cognito:groups": ["trader"],
    "iss": POOL,
    "version": 2,
    "client_id": "1h57kf5cpq17m0eml12EXAMPLE",
    "origin_jti": str(uuid.uuid4()),
    "event_id": str(uuid.uuid4()),
    "token_use": "access",
    "scope": "openid",
    "auth_time": NOW - 3600,
    "jti": str(uuid.uuid4()),
    "username": "demo",
}
SUPABASE_CLAIMS = TIMES | {
    "aal": "aal1",
    "amr": [{"method": "password", "timestamp": NOW - 3600}],
    "app_metadata": {"provider": "email", "providers": ["email"], "roles": ["trader"]},
    "aud": "authenticated",
    "email": "user@example.com",
    "is_anonymous": False,
    "iss": "https://abcdefghijklmnopqrst.supabase.co/auth/v1",
    "phone": "",
    "role": "authenticated",
    "session_id": str(uuid.uuid4()),
    "sub": USER,
    "user_metadata": {"roles": ["admin"]},
}
SUPABASE_OTHERS = (
    TIMES | {"iss": "supabase", "ref": "abcdefghijklmnopqrst", "role": "anon"},
    TIMES | {"iss": "supabase", "ref": "abcdefghijklmnopqrst", "role": "service_role"},
)

PROVIDERS = {
    "keycloak": Provider(
        heading="Keycloak",
        block=0,
        keys=[
            published(RSA_KEYS[1], kid=KEYCLOAK_ENC, alg="RSA-OAEP", use="enc", **chain()),
            published(RSA_KEYS[0], kid=KEYCLOAK_KID, alg="RS256", use="sig", **chain()),
        ],
        header={"alg": "RS256", "typ": "JWT", "kid": KEYCLOAK_KID},
        claims=KEYCLOAK_CLAIMS,
        subject=USER,
        others=(KEYCLOAK_CLAIMS | {"typ": "ID", "aud": "shop-web"}, KEYCLOAK_CLAIMS | {"azp": "other"}),
        private=RSA_KEYS[0],
    ),
    "auth0": Provider(
        heading="Auth0",
        block=0,
        keys=[
            published(key, kid=kid, alg="RS256", use="sig", **chain())
            for key, kid in zip(RSA_KEYS, AUTH0_KIDS, strict=True)
        ],
        header={"alg": "RS256", "typ": "JWT", "kid": AUTH0_KIDS[0]},
        claims=AUTH0_CLAIMS,
        subject="auth0|5f7c8ec7c33c6c004bbafe82",
        others=(AUTH0_CLAIMS | {"aud": "my_client_id"},),
        private=RSA_KEYS[0],
    ),
    "entra": Provider(
        heading="Microsoft Entra ID",
        block=0,
        keys=[  # without alg
            published(
                key,
                kid=kid,
                use="sig",
                cloud_instance_name="microsoftonline.com",
                issuer=f"https://login.microsoftonline.com/{TENANT}/v2.0",
                **chain(),
            )
            for key, kid in zip(RSA_KEYS, [AZURE_KID, secrets.token_urlsafe(20)], strict=True)
        ],
        header={"alg": "RS256", "typ": "JWT", "kid": AZURE_KID},
        claims=AZURE_CLAIMS,
        subject=USER,
        others=(
            AZURE_CLAIMS | {"aud": "00000003-0000-0000-c000-000000000000"},
            AZURE_CLAIMS | {"ver": "1.0"},
        ),
        private=RSA_KEYS[0],
    ),
    "cognito": Provider(
        heading="Amazon Cognito",
        block=0,
        keys=[
            published(key, kid=kid, alg="RS256", use="sig")
            for key, kid in zip(RSA_KEYS, COGNITO_KIDS, strict=True)
        ],
        header={"kid": COGNITO_KIDS[0], "alg": "RS256"},
        claims=COGNITO_CLAIMS,
        subject=USER,
        others=(COGNITO_CLAIMS | {"token_use": "id", "aud": "1h57kf5cpq17m0eml12EXAMPLE"},),
        private=RSA_KEYS[0],
    ),
    "supabase": Provider(
        heading="Supabase",
        block=0,
        keys=[
            published(key, kid=kid, alg="ES256", use="sig", ext=True, key_ops=["verify"])
            for key, kid in zip(EC_KEYS, SUPABASE_KIDS, strict=True)
        ],
        header={"alg": "ES256", "kid": SUPABASE_KIDS[0], "typ": "JWT"},
        claims=SUPABASE_CLAIMS,
        subject=USER,
        others=SUPABASE_OTHERS,
        private=EC_KEYS[0],
    ),
    "supabase, older": Provider(
        heading="Supabase",
        block=1,
        keys=[],
        header={"alg": "HS256", "kid": secrets.token_urlsafe(9), "typ": "JWT"},
        claims=SUPABASE_CLAIMS,
        subject=USER,
        others=SUPABASE_OTHERS,
        private=LEGACY_SECRET,
    ),
}


def documented(provider: Provider) -> str:
    """Return the provider's settings from the document."""
    section = DOCUMENT.read_text("utf-8").partition(f"\n## {provider.heading}\n")[2].partition("\n## ")[0]
    found: list[str] = re.findall(r"^```toml\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return found[provider.block]


def relay_with(folder: Path, settings: str, *, keys_at: str) -> Relay:
    """Return a relay with these settings, whose keys are at another place."""
    relay = with_session(make_relay(folder))
    settings = re.sub(r'^jwks_url = ".*"$', f'jwks_url = "{keys_at}"', settings, flags=re.MULTILINE)
    file = relay.folder / "relay.toml"
    file.write_text(f"{file.read_text()}\n{settings.replace('…', LEGACY_SECRET)}")
    return relay


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_providers_sessions_are_accepted_with_the_documents_settings(
    tmp_path: Path, name: str
) -> None:
    """A session becomes a token for its roles. The provider's other tokens, which the same key signs, are refused."""
    provider = PROVIDERS[name]
    settings = documented(provider)
    signed = tomllib.loads(settings)["session"]["signed"]
    path = urlsplit(signed.get("jwks_url", "https://x/unused")).path
    async with running_backend(path) as publisher:
        publisher.answers({"keys": provider.keys})
        relay = relay_with(tmp_path, settings, keys_at=publisher.url)
        relay.start()
        try:
            sign: Callable[[dict[str, Any]], str]
            for sign in (provider.by_pyjwt, provider.by_joserfc):
                answer = await relay.ask(sign(provider.claims))
                assert answer.status_code == 200, relay.log_path.read_text()
                assert answer.json()["channels"] == ["prices.>"]
                for other in provider.others:
                    refused = await relay.ask(sign(other))
                    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_session")
            issued = await relay.audited("token.issued")
            assert issued["user"]["id"] == provider.subject
            assert "trader" in issued["relay"]["session"]["roles"]
        finally:
            relay.stop()
    assert len(publisher.calls) == (1 if provider.keys else 0)


def test_every_block_of_settings_is_tested() -> None:
    """Each provider of the document is in this test."""
    blocks = [block.text for block in read(DOCUMENT).blocks if block.language == "toml"]
    assert sorted(blocks) == sorted(documented(provider) for provider in PROVIDERS.values())
