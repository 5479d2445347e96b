"""Reasons and exceptions: a closed set, each explained."""

import pytest

from relay.core.errors import (
    EXPLANATIONS,
    ConfigurationError,
    MalformedError,
    Reason,
    Refusal,
    RelayError,
    UnavailableError,
)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_sentence(reason: Reason) -> None:
    """The audit log's readers get one sentence for each reason."""
    sentence = EXPLANATIONS[reason]
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_each_reason_has_a_sentence_of_its_own() -> None:
    """No two reasons are explained in the same words, and there is no sentence without a reason."""
    assert set(EXPLANATIONS) == set(Reason)
    assert len(set(EXPLANATIONS.values())) == len(EXPLANATIONS)


@pytest.mark.parametrize("reason", Reason)
def test_a_reasons_value_is_its_name_in_lower_case(reason: Reason) -> None:
    """A reason's value is its name in lower case, so that logs and code can be searched for one word."""
    assert reason.value == reason.name.lower()


def test_a_refusal_reads_as_its_detail_or_its_reasons_sentence() -> None:
    """The text of a refusal is its detail, or the reason's sentence if it has none."""
    assert str(Refusal(reason=Reason.TOKEN_SIGNATURE)) == EXPLANATIONS[Reason.TOKEN_SIGNATURE]
    assert str(Refusal(reason=Reason.TOKEN_SIGNATURE, detail="Because.")) == "Because."


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (
            MalformedError("A sentence.", reason=Reason.FRAME_MALFORMED),
            Refusal(reason=Reason.FRAME_MALFORMED, detail="A sentence."),
        ),
        (
            UnavailableError(Reason.STATE_UNAVAILABLE, "The disk is full."),
            Refusal(reason=Reason.STATE_UNAVAILABLE, detail="The disk is full."),
        ),
        (
            UnavailableError(Reason.STATE_UNAVAILABLE),
            Refusal(reason=Reason.STATE_UNAVAILABLE, detail=EXPLANATIONS[Reason.STATE_UNAVAILABLE]),
        ),
    ],
)
def test_an_error_becomes_a_refusal(error: MalformedError | UnavailableError, refusal: Refusal) -> None:
    """The refusal has the error's reason, and its text as the detail."""
    assert Refusal.of(error) == refusal


def test_exceptions_form_one_family() -> None:
    """RelayError is the base of all exceptions that this package raises on purpose, each with its sentence."""
    malformed = MalformedError("A sentence.", reason=Reason.FRAME_MALFORMED)
    unavailable = UnavailableError(Reason.STATE_UNAVAILABLE)
    assert (str(malformed), malformed.detail, malformed.reason) == (
        "A sentence.",
        "A sentence.",
        Reason.FRAME_MALFORMED,
    )
    assert str(unavailable) == EXPLANATIONS[Reason.STATE_UNAVAILABLE]
    assert all(isinstance(error, RelayError) for error in (malformed, unavailable, ConfigurationError("x")))
