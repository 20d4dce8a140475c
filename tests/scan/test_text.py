"""Text of foreign origin is one line that a terminal can show, and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scan.errors import InputError
from scan.text import describe, one_line

ODD = {
    "a line break": ("a\nb", r"a\nb"),
    "a carriage return": ("all is well\rno", r"all is well\rno"),
    "an escape code": ("\x1b[31mred", r"\x1b[31mred"),
    "the other way": ("txt.\u202egpj", r"txt.\u202egpj"),
    "part of an undecodable name": ("\udcff.tif", r"\udcff.tif"),
    "a separator of paragraphs": ("a\u2029b", r"a\u2029b"),
    "other scripts": ("Größe 3 µm, 細胞 … ", "Größe 3 µm, 細胞 …"),
}


@pytest.mark.parametrize(("text", "shown"), ODD.values(), ids=ODD)
def test_what_a_terminal_would_act_on_is_escaped(text: str, shown: str) -> None:
    """Everything else stays as it is."""
    assert one_line(text) == shown


@given(text=st.text(max_size=300), limit=st.integers(40, 200))
def test_any_text_is_one_printable_line(text: str, limit: int) -> None:
    """Of at most so many characters; a second time, it stays."""
    line = one_line(text, limit)

    assert line.isprintable()
    assert len(line) <= limit
    assert one_line(line, limit) == line.strip()


def test_a_long_message_is_cut_and_says_so() -> None:
    """Ten megabytes become a line with their length."""
    assert one_line("x" * 10**7, 100).endswith("x… (10000000 characters)")


class Mute(Exception):
    """An error of a user that cannot say what it is."""

    def __str__(self) -> str:
        raise SystemExit(0)


ERRORS = {
    "plain": (ValueError("no\n  number"), "ValueError: no number"),
    "mute": (Mute(), "Mute: its message raises SystemExit"),
    "empty": (KeyError(), "KeyError:"),
}


@pytest.mark.parametrize(("error", "said"), ERRORS.values(), ids=ERRORS)
def test_any_exception_is_described(error: Exception, said: str) -> None:
    """Type and message, also of one whose message fails."""
    assert describe(error) == said


def test_each_part_of_an_error_is_one_line() -> None:
    """However long a name or a message of a library is, the hint is shown."""
    error = InputError("\n" + "n" * 5000, "an image", "\x1b[2J" + "x" * 10**7, "check it")

    assert str(error).isprintable()
    assert str(error).endswith("; check it")
    assert len(str(error)) < 1200
