"""The command line: options over the settings file, help, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from command.command_line import build_parser, parse
from config import FILE_ONLY, SETTINGS_FILE, VERSION, Settings, SettingsError, marked, validate

OPTIONS = [name for name in Settings.model_fields if name not in marked(FILE_ONLY)]


def test_a_mistyped_option_suggests_the_nearest() -> None:
    """An unknown option is refused with the nearest known one."""
    with pytest.raises(SettingsError, match="did you mean --stripes"):
        parse(["--stripe", "2"])


@pytest.mark.parametrize("option", ["--config", "--out", "--resume", "--report"])
def test_an_empty_name_is_refused(option: str) -> None:
    """A variable of the shell that was never set starts no scan into another folder."""
    with pytest.raises(SettingsError, match=rf"{option}: expected a name, got an empty"):
        parse([option, ""])


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the program's name and version."""
    with pytest.raises(SystemExit) as ended:
        parse(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out == f"stripe scan {VERSION}\n"


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    """A value on the command line overrides the settings file."""
    file = tmp_path / "scan.toml"
    file.write_text("stripes = 5\nplanes = 9\n")

    settings = parse(["--config", str(file), "--stripes", "2"]).settings

    assert (settings.stripes, settings.planes) == (2, 9)


@pytest.mark.parametrize("text", [None, "stripes = ", "\xff"], ids=["missing", "torn", "binary"])
def test_a_damaged_settings_file_is_named(tmp_path: Path, text: str | None) -> None:
    """An unreadable settings file is named in the error."""
    file = tmp_path / "scan.toml"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))

    with pytest.raises(SettingsError, match=r"scan\.toml"):
        parse(["--config", str(file)])


@pytest.fixture
def help_text(monkeypatch: pytest.MonkeyPatch) -> str:
    """The help as a terminal of 80 columns shows it."""
    monkeypatch.setenv("COLUMNS", "80")
    return build_parser().format_help()


def test_help_fits_two_screens(help_text: str) -> None:
    """The help can be read without scrolling far."""
    assert len(help_text.splitlines()) <= 49


GROUPED = {
    "images": "microscope replay_path mm_config seed",
    "slide and stage": "stripes fields planes field_px overlap_px pixel_size_um z_step_um "
    "exposure_ms stage_speed_um_per_ms",
    "focus": "focus focus_samples focus_center_um focus_range_um",
    "results": "align register_fields predictor scan_predictor polarity diameter_um",
    "faults and stress": "retries watchdog_s stress stress_seconds",
    "Ray": "address num_cpus object_store_mb",
}


@pytest.mark.parametrize("title", GROUPED)
def test_help_has_the_settings_in_groups(help_text: str, title: str) -> None:
    """Each title lists its settings in order."""
    block = help_text.partition(f"\n{title}:\n")[2]
    block = re.split(r"\n(?=\S)", block)[0]

    assert re.findall(r"^  --([\w-]+)", block, re.M) == GROUPED[title].replace("_", "-").split()


def test_every_option_has_a_group() -> None:
    """Every setting is in one of the groups above, except file-only ones."""
    assert " ".join(GROUPED.values()).split() == OPTIONS


@pytest.mark.parametrize("name", OPTIONS)
def test_help_shows_unit_and_default(help_text: str, name: str) -> None:
    """Every option shows its default, and its unit if its name ends with one."""
    option = re.split(rf"\n  --{name.replace('_', '-')}(?![\w-])", help_text)[1]
    option = " ".join(re.split(r"\n  -|\n\S", option)[0].split())
    default, unit = getattr(Settings(), name), re.search(r"_(um|ms|px|s|mb)$", name)

    assert default in (None, False) or f"{default})" in option or "default: a quarter" in option
    assert not unit or re.match(rf"(UM/)?{unit[1].upper()} ", option)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder of a run with some settings of its own."""
    settings = validate({"stripes": 2, "fields": 5, "exposure_ms": 7})
    (tmp_path / SETTINGS_FILE).write_text(settings.to_toml())
    return tmp_path


SAME_ANSWER = {
    "nothing": [],
    "the same again": ["--fields", "5"],
    "more CPUs": ["--num-cpus", "7"],
    "a cluster": ["--address", "10.0.0.1:6379"],
}


@pytest.mark.parametrize("options", SAME_ANSWER.values(), ids=SAME_ANSWER)
def test_a_run_is_resumed_with_its_own_settings(earlier: Path, options: list[str]) -> None:
    """Settings that do not affect the answer may change; all others are those of the run."""
    call = parse(["--resume", str(earlier), *options])

    assert call.resume == earlier
    assert (call.settings.stripes, call.settings.fields, call.settings.exposure_ms) == (2, 5, 7)


def test_a_run_with_an_old_name_is_resumed(earlier: Path) -> None:
    """A run folder of an earlier version has old names in its settings."""
    file = earlier / SETTINGS_FILE
    file.write_text(file.read_text().replace("backlash_um = 0.0", "approach_um = 2.5"))

    assert parse(["--resume", str(earlier)]).settings.backlash_um == 2.5


ANOTHER_ANSWER = {
    "another seed": (["--seed", "9"], "seed (1, now 9)"),
    "two of them": (["--fields", "6", "--planes", "3"], "fields (5, now 6), planes (15, now 3)"),
    "a new folder": (["--out", "x"], "not allowed with argument"),
}


@pytest.mark.parametrize(("options", "message"), ANOTHER_ANSWER.values(), ids=ANOTHER_ANSWER)
def test_a_run_is_not_resumed_as_another(earlier: Path, options: list[str], message: str) -> None:
    """Settings that would change the answer are refused by name, with both values."""
    with pytest.raises(SettingsError) as raised:
        parse(["--resume", str(earlier), *options])

    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_without_run_is_not_resumed(tmp_path: Path) -> None:
    """A folder without a run is refused, naming the missing file."""
    with pytest.raises(SettingsError, match=SETTINGS_FILE):
        parse(["--resume", str(tmp_path)])
