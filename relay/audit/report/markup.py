"""HTML that escapes by default: only `tag` and `page` make `Html`, and each text they are given is escaped.

The names of tags and attributes and the style sheet are texts of this package. A text of the log is never one of them,
and never a URL.
"""

import base64
import hashlib
import html
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Html:
    """A piece of HTML. A `str` is always a text that is still to be escaped."""

    source: str


Piece = Html | str | int


def text(value: object) -> str:
    """Return a text for a page: escaped, and without characters that are not shown, as those that turn a line round."""
    shown = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(value)
    )
    return html.escape(shown)


def tag(name: str, /, *pieces: Piece, **attributes: object) -> Html:
    """Return an element. An attribute's underscores stand for hyphens, and one at the end is left out."""
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items()
    )
    start = f"<{name}{named}>"
    # an empty element of SVG needs an end; in HTML, this package needs only `meta` without one
    return Html(start if name == "meta" else f"{start}{_source(pieces)}</{name}>")


def page(title: str, style: str, *pieces: Piece) -> str:
    """Return a whole page, which can load nothing and run nothing: its policy allows this one style sheet alone."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = _source(
        [
            tag("meta", charset="utf-8"),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", title),
            Html(f"<style>{style}</style>"),
        ]
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>{_source(pieces)}</body>\n</html>\n'
    )


def _source(pieces: tuple[Piece, ...] | list[Html]) -> str:
    return "".join(piece.source if isinstance(piece, Html) else text(piece) for piece in pieces)
