"""Settings: complete, frozen, and strict about names and values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import config
from config import FILE_ONLY, FREE_ON_RESUME, Settings, SettingsError, marked, marks, validate

REAL = {"microscope": "micromanager"}
REPLAY = {"microscope": "replay", "replay_path": "x"}
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
    "a pattern of a simulation": ({"name_pattern": "z{z}"}, "only with --microscope replay"),
    "a check of no recording": ({"check_recording": True}, "only with --microscope replay"),
    "a pattern of nothing": (REPLAY | {"name_pattern": "z"}, "each once of {row}"),
    "an unknown part of names": (REPLAY | {"name_pattern": "{depth}"}, "each once of {row}"),
    "a part twice": (REPLAY | {"name_pattern": "{z}_{z}"}, "each once of {row}"),
    "a column by two names": (REPLAY | {"name_pattern": "{col}{column}"}, "each once of {row}"),
    "a channel below 0": (REPLAY | {"channel": -1}, "channel: expected"),
    "two channels of a name": ({"channels": [{"name": "A"}, {"name": "A"}]}, "different names"),
    "a channel without name": ({"channels": [{}]}, "channels[0].name: expected that key, got none"),
    "an unknown key": (
        {"channels": [{"name": "A", "lamp": 1}]},
        "channels[0].lamp: expected a kno",
    ),
    "no light": ({"channels": [{"name": "A", "exposure_ms": 0}]}, "channels[0].exposure_ms: expec"),
    "no colour": ({"channels": [{"name": "A", "colour": "#FF0000"}]}, "six hex digits"),
    "a thin reference": ({"channels": [{"name": "A", "planes": 3}]}, "no planes and no z_offset"),
    "two references": ({"channels": [{"name": n, "reference": True} for n in "AB"]}, "one channel"),
    "a preset of a simulation": ({"channels": [{"name": "A", "preset": "B"}]}, "no preset with"),
    "one and several channels": (
        REPLAY | {"channel": 1, "channels": [{"name": "A"}]},
        "channel: expected that or channels",
    ),
    "one flat for two channels": (
        {"channels": [{"name": "A"}, {"name": "B"}], "flat_field": "estimate"},
        "flat_field: expect",
    ),
    "a spiral": (REPLAY | {"layout": "spiral"}, "'raster' or 'snake'"),
    "cameras of a real microscope": (
        {"microscope": "micromanager", "mm_config": "x", "cameras": 2},
        "each configuration is one",
    ),
    "no configuration": ({"microscope": "micromanager"}, "mm_config: expected one for"),
    "configuration of nothing": ({"mm_config": "x"}, "only with --microscope micromanager"),
    "one and several": (MICROMANAGER | {"microscopes": ["b.cfg"]}, "that or microscopes, got both"),
    "edge of a camera": (MICROMANAGER | {"field_px": 256}, "use roi_px, binning"),
    "part of no width": (MICROMANAGER | {"roi_px": [0, 0, 0, 9]}, "roi_px: expected greater than"),
    "two resources": ({"capture_on": "a b"}, "capture_on: expected"),
    "one file twice": (REAL | {"microscopes": ["b.cfg", "b.cfg"]}, "different ones"),
    "stage limits": (MICROMANAGER | {"stage_limits_um": [0, 9, 9, 0]}, "minimum before maximum"),
    "unknown focus": ({"focus": "auto"}, "focus: expected 'surface', 'none'"),
    "recorded planes": (REPLAY | {"focus": "none"}, "expected surface with a recording, got none"),
    "no such device": ({"focus": "hardware"}, "hardware only with --microscope micromanager"),
    "no points": ({"focus": "points"}, "focus_points: expected some with focus points, got none"),
    "points for nothing": ({"focus_points": [[0, 0, 1]]}, "expected only with focus points, got s"),
    "half a point": ({"focus": "points", "focus_points": [[0, 1]]}, "focus_points: expected"),
    "focus limits": (MICROMANAGER | {"focus_limits_um": [9, -9]}, "minimum before maximum"),
}


@pytest.mark.parametrize(("values", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named_in_one_line(values: dict[str, object], said: str) -> None:
    """A wrong setting is refused in one line that says what was expected and what was got."""
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
def test_saved_settings_are_read_back_equal(
    stripes: int, fields: int | None, overlap: int | None, exposure: float
) -> None:
    """Settings read back from their TOML are equal."""
    settings = validate(
        {"stripes": stripes, "fields": fields, "overlap_px": overlap, "exposure_ms": exposure}
    )

    assert validate(config.tomllib.loads(settings.to_toml())) == settings


def test_a_setting_is_read_by_its_old_name() -> None:
    """A settings file of an earlier version is read; what is saved has today's name."""
    settings = validate({"approach_um": 2.5})

    assert settings.backlash_um == 2.5
    assert "approach_um" not in settings.to_toml()


def test_a_setting_is_not_given_by_two_names() -> None:
    """Giving both the old and the new name is an error."""
    with pytest.raises(SettingsError, match="backlash_um: expected to be given once"):
        validate({"approach_um": 2.5, "backlash_um": 1.0})


MAY_CHANGE = (
    "replay_path cameras check_recording mm_config microscopes adapters stage_limits_um "
    "focus_limits_um device_timeout_s bursts scan_predictor retries watchdog_s camera_start_s "
    "task_timeout_s address capture_on num_cpus object_store_mb store_fraction stress "
    "stress_seconds flat_field dark_field"
)
NO_OPTIONS = (
    "name_pattern channel channels colour layout cameras check_recording microscopes adapters "
    "binning roi_px origin_um stage_limits_um focus_limits_um backlash_um device_timeout_s "
    "autofocus_offset bursts settle_ms focus_points camera_start_s task_timeout_s "
    "saturated_limit capture_on store_fraction vignetting flat_field dark_field stage_error_um "
    "stage_rotation_deg stage_drift_um"
)


def test_rules_are_read_from_the_fields() -> None:
    """Which settings may change on resume, and which are keys of the settings file alone."""
    assert marked(FREE_ON_RESUME) == set(MAY_CHANGE.split())
    assert marked(FILE_ONLY) == set(NO_OPTIONS.split())


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_measured_setting_has_its_unit(name: str) -> None:
    """The marker of a field and the suffix of its name agree."""
    group, unit, _ = marks(name)
    suffix = re.search(r"_(um|ms|px|s|mb)$", name)

    assert group.title
    assert not suffix or unit.name.split("/")[-1] == suffix[1].upper()


def points_in(folder: Path, text: str) -> dict[str, str]:
    """Settings with a file of known heights."""
    (folder / "points.csv").write_text(text)
    return {"focus": "points", "focus_points": str(folder / "points.csv")}


def test_known_heights_are_part_of_the_settings(tmp_path: Path) -> None:
    """The file is read once: a run is resumed with its points, whatever becomes of the file."""
    settings = validate(
        points_in(tmp_path, "z_um,name,x_um,y_um\n1.5,left,-10,20\n2,right,90,2e1\n")
    )
    (tmp_path / "points.csv").unlink()

    assert settings.focus_points == ((-10.0, 20.0, 1.5), (90.0, 20.0, 2.0))
    assert validate(config.tomllib.loads(settings.to_toml())) == settings


POINTS = {
    "no file": (None, "the name of a CSV file with the columns x_um, y_um, z_um"),
    "no rows": ("x_um,y_um,z_um\n", "with 1 to 500 points (0 found)"),
    "empty": ("", "with 1 to 500 points (0 found)"),
    "too many": ("x_um,y_um,z_um\n" + "1,2,3\n" * 501, "with 1 to 500 points (501 found)"),
    "no such column": ("x,y,z\n1,2,3\n", "a number in each of the columns x_um, y_um, z_um"),
    "a short row": ("x_um,y_um,z_um\n1,2\n", "a number in each of the columns x_um, y_um, z_um"),
    "text": ("x_um,y_um,z_um\n1,2,high\n", "a number in each of the columns x_um, y_um, z_um"),
    "infinite": ("x_um,y_um,z_um\n1,2,inf\n", "focus_points: expected"),
    "no number": ("x_um,y_um,z_um\n1,2,nan\n", "focus_points: expected"),
}


@pytest.mark.parametrize(("text", "said"), POINTS.values(), ids=POINTS)
def test_files_of_heights_are_refused_in_one_line(
    tmp_path: Path, text: str | None, said: str
) -> None:
    """A file without heights is refused with what was expected in it."""
    given = points_in(tmp_path, text or "")
    if text is None:
        (tmp_path / "points.csv").unlink()

    with pytest.raises(SettingsError, match=re.escape(said)) as refused:
        validate(given)

    assert "\n" not in str(refused.value)


def test_settings_cannot_be_changed() -> None:
    """Settings are frozen, so what was saved is what ran."""
    with pytest.raises(ValidationError):
        Settings().stripes = 4  # type: ignore[misc]
