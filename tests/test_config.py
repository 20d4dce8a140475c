"""Settings: complete, frozen, and strict about names and values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import config
from config import Settings, SettingsError, build_parser, parse, validate

MISTAKES = {
    "unknown key": ({"feilds": 3}, "did you mean 'fields'"),
    "list for a number": ({"field_px": [1]}, "field_px: expected a valid integer"),
    "text for an edge": ({"field_px": "abc"}, "field_px: expected a valid integer"),
    "endless step": ({"z_step_um": float("inf")}, "z_step_um: expected a finite number"),
    "no stripes": ({"stripes": 0}, "stripes: expected greater than or equal to 1, got 0"),
    "text for a number": ({"planes": "many"}, "planes: expected a valid integer"),
    "unknown microscope": ({"microscope": "toy"}, "got 'toy'"),
    "overlap beyond half": ({"field_px": 256, "overlap_px": 200}, "at most half of field_px (128)"),
    "replay of nothing": ({"microscope": "replay"}, "expected a recording to replay, got none"),
    "recording without replay": ({"replay_path": "x"}, "only with --microscope replay"),
}


@pytest.mark.parametrize(("values", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named_in_one_line(values: dict[str, object], said: str) -> None:
    """A wrong setting is refused in one line that says what was expected and what came."""
    with pytest.raises(SettingsError) as refused:
        validate(values)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_mistyped_option_is_told_its_neighbour() -> None:
    """An unknown option is refused with the nearest known one."""
    with pytest.raises(SettingsError, match="did you mean --stripes"):
        parse(["--stripe", "2"])


@given(
    stripes=st.integers(1, 100),
    fields=st.none() | st.integers(1, 10**6),
    overlap=st.none() | st.integers(0, 128),
    exposure=st.floats(0.01, 1000),
)
def test_saved_settings_repeat_themselves(
    stripes: int, fields: int | None, overlap: int | None, exposure: float
) -> None:
    """Settings read back from their TOML are equal."""
    settings = validate(
        {"stripes": stripes, "fields": fields, "overlap_px": overlap, "exposure_ms": exposure}
    )

    assert validate(config.tomllib.loads(settings.to_toml())) == settings


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    """What the command line says counts more than what the file says."""
    file = tmp_path / "scan.toml"
    file.write_text("stripes = 5\nplanes = 9\n")

    settings = parse(["--config", str(file), "--stripes", "2"]).settings

    assert (settings.stripes, settings.planes) == (2, 9)


@pytest.mark.parametrize("text", [None, "stripes = ", "\xff"], ids=["missing", "torn", "binary"])
def test_a_damaged_settings_file_is_named(tmp_path: Path, text: str | None) -> None:
    """A settings file that cannot be read is a mistake that names the file."""
    file = tmp_path / "scan.toml"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))

    with pytest.raises(SettingsError, match=r"scan\.toml"):
        parse(["--config", str(file)])


def test_settings_cannot_be_changed() -> None:
    """Settings are frozen, so what was saved is what ran."""
    with pytest.raises(ValidationError):
        Settings().stripes = 4  # type: ignore[misc]


def test_help_fits_two_screens() -> None:
    """The help can be read without scrolling far, and names every option's unit or kind."""
    assert len(build_parser().format_help().splitlines()) <= 48
