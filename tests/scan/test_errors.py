"""Errors say four things and survive a journey."""

from __future__ import annotations

import pickle

import pytest

from scan import errors
from scan.errors import ScanError, UserMistake

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ScanError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind: type[ScanError]) -> None:
    """An error that crosses processes arrives with its type, its fields and its text."""
    sent = kind("camera", "a frame", "silence", "check the cable")

    got = pickle.loads(pickle.dumps(sent))

    assert type(got) is kind
    assert (got.args, str(got)) == (sent.args, str(sent))


def test_the_message_says_what_to_do() -> None:
    """A message names its subject, what was expected, what came and what to do."""
    said = str(UserMistake("stage", "100 um", "900 um", "lower the limit"))

    assert said == "stage: expected 100 um, got 900 um; lower the limit"
