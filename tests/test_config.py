"""Settings: complete, frozen, and strict about names and values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import config
from config import Settings, SettingsError, validate

REAL = {"microscope": "micromanager"}
MICROMANAGER = REAL | {"mm_config": "a.cfg"}

MISTAKES = {
    "unknown key": ({"feilds": 3}, "did you mean 'fields'"),
    "list for a number": ({"field_px": [1]}, "field_px: expected a valid integer"),
    "text for an edge": ({"field_px": "abc"}, "field_px: expected a valid integer"),
    "endless step": ({"z_step_um": float("inf")}, "z_step_um: expected a finite number"),
    "no stripes": ({"stripes": 0}, "stripes: expected greater than or equal to 1, got 0"),
    "text for a number": ({"planes": "many"}, "planes: expected a valid integer"),
    "endless rest": ({"settle_ms": 1e300}, "settle_ms: expected less than or equal to 60000"),
    "endless patience": ({"watchdog_s": 1e300}, "watchdog_s: expected less than or equal to 86400"),
    "objects of a mile": ({"diameter_um": 1e300}, "diameter_um: expected less than or equal to"),
    "stage at rest": ({"stage_speed_um_per_ms": 1e-300}, "expected greater than or equal to 0.001"),
    "unknown microscope": ({"microscope": "toy"}, "got 'toy'"),
    "overlap beyond half": ({"field_px": 256, "overlap_px": 200}, "at most half of field_px (128)"),
    "millions of fields": ({"stripes": 100, "fields": 20_000}, "at most 1000000 in all stripes"),
    "replay of nothing": ({"microscope": "replay"}, "replay_path: expected one for --microscope"),
    "recording without replay": ({"replay_path": "x"}, "only with --microscope replay"),
    "no configuration": ({"microscope": "micromanager"}, "mm_config: expected one for"),
    "configuration of nothing": ({"mm_config": "x"}, "only with --microscope micromanager"),
    "one and several": (MICROMANAGER | {"microscopes": ["b.cfg"]}, "that or microscopes, got both"),
    "edge of a camera": (MICROMANAGER | {"field_px": 256}, "use roi_px, binning"),
    "part of no width": (MICROMANAGER | {"roi_px": [0, 0, 0, 9]}, "roi_px: expected greater than"),
    "two resources": ({"capture_on": "a b"}, "capture_on: expected"),
    "one file twice": (REAL | {"microscopes": ["b.cfg", "b.cfg"]}, "different files"),
    "stage limits": (MICROMANAGER | {"stage_limits_um": [0, 9, 9, 0]}, "least before greatest"),
    "focus limits": (MICROMANAGER | {"focus_limits_um": [9, -9]}, "least before greatest"),
}


@pytest.mark.parametrize(("values", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named_in_one_line(values: dict[str, object], said: str) -> None:
    """A wrong setting is refused in one line that says what was expected and what came."""
    with pytest.raises(SettingsError) as refused:
        validate(values)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@given(
    stripes=st.integers(1, 100),
    fields=st.none() | st.integers(1, 10**4),
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


def test_settings_cannot_be_changed() -> None:
    """Settings are frozen, so what was saved is what ran."""
    with pytest.raises(ValidationError):
        Settings().stripes = 4  # type: ignore[misc]
