"""The decoder's errors about JSON of the wrong form, in words of JSON: its own ones name types of Python."""

import re

import msgspec

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
_WRONG_TYPE = re.compile(r"Expected `([a-z |]+)`, got `([a-z]+)`")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `([^`]*)`")
_PLACE = re.compile(r" - at `\$\.?(.*)`$")


def in_words(error: msgspec.ValidationError) -> str:
    """Return the error as a part of a sentence, such as "version must be a whole number or null, not a text"."""
    text = str(error)
    place = _PLACE.search(text)
    name = place[1] if place else ""
    if wrong := _WRONG_TYPE.match(text):
        wanted = " or ".join(_TYPES.get(part, part) for part in wrong[1].split(" | "))
        return f"{name or 'it'} must be {wanted}, not {_TYPES.get(wrong[2], wrong[2])}"
    if field := _FIELD.match(text):
        whole = f"{name}.{field[2]}" if name else field[2]
        return f"{whole} is missing" if field[1] == "missing required" else f"{whole} is an unknown member"
    return text
