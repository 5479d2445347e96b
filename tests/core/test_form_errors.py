"""Errors about JSON of the wrong form are in words of JSON."""

import pytest

from relay.core.errors import MalformedError
from relay.core.messages import parse_client_frame
from relay.core.publications import parse_draft


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('{"channel":1,"data":1}', "channel must be a text, not a whole number."),
        ('{"channel":"a.b","data":1,"version":"1"}', "version must be a whole number or null, not a text."),
        ('{"channel":"a.b","data":1,"version":1.5}', "version must be a whole number or null, not a number."),
        ('{"channel":"a.b","alive":1}', "alive must be true or false, not a whole number."),
        (
            '{"channel":"a.b","data":1,"idempotency_key":[]}',
            "idempotency_key must be a text or null, not a list.",
        ),
        ('{"data":1}', "channel is missing."),
        ('{"channel":"a.b","data":1,"chanel":1}', "chanel is an unknown member."),
    ],
)
def test_a_publication(body: str, sentence: str) -> None:
    """The member is named, with what it must be and what it is."""
    with pytest.raises(MalformedError) as refused:
        parse_draft(body.encode())
    assert refused.value.detail == f"The publication does not have the required form: {sentence}"


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        ('{"type":"subscribe","channels":"a"}', "channels must be a list, not a text"),
        ('{"type":"subscribe","channels":[1]}', "channels[0] must be a text, not a whole number"),
        ('{"type":"subscribe"}', "channels is missing"),
        ('{"type":5}', "type must be a text, not a whole number"),
        ("[]", "it must be an object, not a list"),
    ],
)
def test_a_frame_of_a_client(frame: str, sentence: str) -> None:
    """As for a publication."""
    with pytest.raises(MalformedError) as refused:
        parse_client_frame(frame)
    assert refused.value.detail == sentence
