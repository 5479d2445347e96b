"""The text of a relay.toml for a relay on this machine, as tests, the demo and benchmarks need one.

`settings_text` writes the sections that each of them needs: [public], [listen], [session], the endpoint `prices`,
[grants] and [publishers]. The caller adds its own sections as TOML. `write_folder` writes the text and a signing key.

With ports of 0 the addresses are known only after the start, so the settings can't name them. Benchmarks therefore
give `public_url` and `stream_url` of a host that does not exist.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from relay.keys.files import create_signing_key

_TEXT = """\
[public]
url = "{public_url}"
stream_url = "{stream_url}"
{origins}
[listen]
http = "127.0.0.1:{ports[0]}"
stream = "127.0.0.1:{ports[1]}"
internal = "127.0.0.1:{ports[2]}"

[session]
cookie = "access-token"        # behind https: __Host-access-token
ref_key = "{ref_key}"
signed = {{ algorithm = "HS256", secret = "{session_secret}", require = {{ token_use = "access" }} }}

[endpoints.prices]
path = "/ws/prices"
channels = ["prices.>"]

[grants]
{grants}

{publishers}
{sections}"""

_PUBLISHER = """\
[publishers.{name}]
secret_sha256 = ["{digest}"]
channels = {channels}
"""


def settings_text(
    *,
    session_secret: str,
    ref_key: str = "",
    ports: tuple[int, int, int] = (0, 0, 0),
    public_url: str = "",
    stream_url: str = "",
    more_origins: Sequence[str] = (),
    grants: Mapping[str, Mapping[str, Sequence[str] | bool]],
    publishers: Mapping[str, tuple[str, Sequence[str]]],
    sections: str = "",
) -> str:
    """Return the text of a relay.toml.

    Args:
        session_secret: The HS256 secret of session tokens; such a token has `token_use = "access"`.
        ref_key: The key of session references. Default: a random one.
        ports: Ports of the public, the stream and the internal listener on 127.0.0.1; 0 takes a free one.
        public_url: The origin of the page. Default: the public listener's address.
        stream_url: The origin of the stream. Default: the stream listener's address.
        more_origins: Further origins that may ask for tokens and open sockets.
        grants: Patterns by role and endpoint, or true for a service.
        publishers: SHA-256 of the secret, and channels, by the publisher's name.
        sections: TOML of other sections.
    """
    page = public_url or f"http://127.0.0.1:{ports[0]}"
    return _TEXT.format(
        public_url=page,
        stream_url=stream_url or f"ws://127.0.0.1:{ports[1]}",
        origins=f"allowed_origins = {json.dumps(list(more_origins))}\n" if more_origins else "",
        ports=ports,
        ref_key=ref_key or secrets.token_hex(32),
        session_secret=session_secret,
        grants="\n".join(
            f"{role}.{endpoint} = {json.dumps(granted)}"
            for role, by_endpoint in grants.items()
            for endpoint, granted in by_endpoint.items()
        ),
        publishers="\n".join(
            _PUBLISHER.format(name=name, digest=digest, channels=json.dumps(channels))
            for name, (digest, channels) in publishers.items()
        ),
        sections=sections,
    )


def write_folder(folder: Path, text: str) -> Path:
    """Write `text` as relay.toml into `folder`, with a signing key in `keys/` if there is none. Return the file's path.

    Both can be read by the owner only, as `relay doctor` demands: the settings have secrets.
    """
    if not (folder / "keys").exists():
        create_signing_key(folder / "keys")
    file = folder / "relay.toml"
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")
    return file
