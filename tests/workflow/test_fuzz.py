"""Any input ends in an answer or a message: no traceback, no hang."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
import tomllib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import main
from command.command_line import parse
from config import Settings, SettingsError, validate
from microscope.opening import prepare
from microscope.replay import Recording
from prediction.opening import open_predictor
from scan.errors import InputError, UserMistake

SECONDS = timedelta(seconds=10)  # for one example, on a slow machine; all but a few take 1 ms


def require_answered(data: bytes) -> None:
    """A settings file is refused in one line with exit code 2, or accepted and can be saved.

    These are the steps of the program before anything is written.
    """
    refused: SettingsError | UserMistake | None = None
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "scan.toml"
        file.write_bytes(data)
        try:
            accepted = parse(["--config", str(file)]).settings
            if not accepted.configurations:
                open_predictor(accepted.predictor, prepare(accepted).dtype)
        except (SettingsError, UserMistake) as error:
            refused = error
    if refused:
        assert refused.exit_code == 2
        assert len(str(refused).splitlines()) == 1
    else:
        assert validate(tomllib.loads(accepted.to_toml())) == accepted


SOUND = [
    Settings(),
    Settings(fields=4, predictor="onnx:none.onnx", diameter_um=9, num_cpus=2, address="host:1"),
    Settings(microscope="replay", replay_path="none.tif", fields=4, overlap_px=8, z_step_um=1),
]
ODD = [
    b"nan", b"-inf", b"1e400", b"5e-324", b"-1", b"0", b"9" * 400, b"9" * 5000, b"0x" + b"f" * 5000,
    b"true", b"[]", b"[[1], {a = 2}]", b"[" * 3000, b"{}", b'""', b'"\\u0000"', b'"a\\nb"',
    b'"onnx:\\u0000"', b'"bioimageio:a\\nb"', b'"no:module"', b"1979-05-27", b"1979-13-99", b"",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid settings file after one to three mishaps."""
    data = draw(st.sampled_from(SOUND)).to_toml().encode()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        until = draw(st.integers(at, min(at + 8, len(data))))
        lines = data.split(b"\n")
        line = draw(st.integers(0, len(lines) - 1))
        key = lines[line].partition(b" = ")[0]
        odd = [*lines[:line], key + b" = " + draw(st.sampled_from(ODD)), *lines[line + 1 :]]
        data = draw(
            st.sampled_from([data[:at] + data[until:], b"\n".join(odd)])
            | st.binary(max_size=8).map(lambda new: data[:at] + new + data[until:])  # noqa: B023
            | st.text(min_size=1, max_size=8).map(lambda key: f'"{key}" = 1\n'.encode() + data)  # noqa: B023
        )
    return data


@settings(max_examples=300, deadline=SECONDS, suppress_health_check=[HealthCheck.too_slow])
@given(data=damaged())
def test_damaged_settings_are_refused_in_one_line(data: bytes) -> None:
    """A damaged settings file is refused in one line, or its settings are still valid."""
    require_answered(data)


@pytest.mark.parametrize("key", Settings.model_fields)
def test_odd_values_are_refused_in_one_line(key: str) -> None:
    """Each setting, given any odd value, is refused in the same way, or accepted."""
    sound = SOUND[2 * (key == "replay_path")].model_dump(exclude_none=True, exclude={key})
    for odd in ODD:
        require_answered(tomli_w.dumps(sound).encode() + key.encode() + b" = " + odd + b"\n")


ENORMOUS = {
    "fields": {"stripes": 1, "fields": 10**5, "field_px": 64},
    "pixels": {"planes": 500, "z_step_um": 0.1, "field_px": 8192},
    "everything": dict.fromkeys(("fields", "planes", "field_px", "stripes", "seed"), 10**18),
}


@pytest.mark.parametrize("values", ENORMOUS.values(), ids=ENORMOUS)
def test_enormous_scans_are_refused_or_planned_soon(values: dict[str, int]) -> None:
    """Settings far beyond any slide are answered within seconds of computing."""
    began_s = time.process_time()

    require_answered(tomli_w.dumps(values).encode())

    assert time.process_time() - began_s < SECONDS.total_seconds()


# ------------------------------------------------------------------------------------- recordings

FIELDS, SHAPE = 4, (7, 96, 96)


def record(folder: Path) -> None:
    """Write TIFF stacks of grain that is sharpest in the middle plane."""
    folder.mkdir()
    for number in range(FIELDS):
        generator = np.random.default_rng(number)
        grain = 600 + 3000 * cv2.GaussianBlur(generator.normal(size=SHAPE[1:]), (0, 0), 3)
        planes = [cv2.GaussianBlur(grain, (0, 0), 0.5 + 1.5 * abs(z - 3)) for z in range(SHAPE[0])]
        stack = (planes + generator.normal(0, 8, SHAPE)).clip(0, 65535).astype(np.uint16)
        tifffile.imwrite(folder / f"field{number}.tif", stack, photometric="minisblack")


Damage = Callable[[random.Random, Path], object]


def flip(generator: random.Random, file: Path, among: int) -> None:
    """Change some of the first so many bytes."""
    data = bytearray(file.read_bytes())
    for _ in range(8):
        data[generator.randrange(min(among, len(data)))] ^= 1 << generator.randrange(8)
    file.write_bytes(data)


def forge(generator: random.Random, file: Path) -> None:
    """Tile the images, and claim a million times as many rows as there are."""
    tifffile.imwrite(file, tifffile.imread(file), photometric="minisblack", tile=(16, 16))
    with tifffile.TiffFile(file, mode="r+b") as tiff:
        for page in tiff.pages:
            page.tags["ImageLength"].overwrite(generator.randrange(10**6, 2 * 10**6))


def rewrite(change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Write a file again, whole, but with other pixels."""
    return lambda generator, file: tifffile.imwrite(
        file, change(tifffile.imread(file)), photometric="minisblack"
    )


DAMAGES: dict[str, Damage] = {
    "truncated": lambda g, f: f.write_bytes(f.read_bytes()[: g.randrange(1, f.stat().st_size)]),
    "header flipped": lambda g, f: flip(g, f, 400),
    "header flipped again": lambda g, f: flip(g, f, 400),
    "pixels flipped": lambda g, f: flip(g, f, 10**9),
    "forged header": forge,
    "renamed": lambda g, f: f.rename(f.with_suffix(g.choice([".png", ".jpg", ".txt", ".btf"]))),
    "emptied": lambda g, f: f.write_bytes(b""),
    "text": lambda g, f: f.write_text("no image"),
    "zero-filled": lambda g, f: f.write_bytes(bytes(f.stat().st_size)),
    "PNG next to it": lambda g, f: cv2.imwrite(
        str(f.with_suffix(".png")), np.full(SHAPE[1:], g.randrange(256), np.uint8)
    ),
    "folder next to it": lambda g, f: shutil.copytree(f.parent, f.parent / "more"),
    "other size": rewrite(lambda stack: stack[:, :-1]),
    "other dtype": rewrite(lambda stack: (stack // 256).astype(np.uint8)),
    "plane missing": rewrite(lambda stack: stack[1:]),
    "black": rewrite(np.zeros_like),
    "not a number": rewrite(lambda stack: np.where(stack > 400, np.nan, stack)),
}


def damaged_recording(name: str, folder: Path) -> Path:
    """A folder of fields of which one is damaged, the same in every run."""
    generator = random.Random(name)
    record(folder)
    DAMAGES[name](generator, folder / f"field{generator.randrange(FIELDS)}.tif")
    return folder


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_recordings_are_refused_or_read(name: str, tmp_path: Path) -> None:
    """A damaged recording is refused in one line, or a field of it; the other fields are read."""
    folder = damaged_recording(name, tmp_path / "fields")
    recording, refused = None, None
    try:
        recording = Recording.open(folder)
    except InputError as error:
        refused = error

    for field in range(recording.field_count if recording else 0):
        try:
            frames = recording.read_field(field)
        except InputError as error:
            refused = error
            continue
        assert frames.shape == (recording.planes, *recording.frame_shape)
        assert frames.dtype == recording.dtype
    if refused:
        assert len(str(refused).splitlines()) == 1
        assert str(folder) in refused.subject


ENDS = {"truncated": 3, "other size": 2, "black": 0, "pixels flipped": 0}


@pytest.mark.parametrize(("name", "code"), ENDS.items(), ids=ENDS)
def test_scans_of_damaged_recordings_end(
    name: str, code: int, local_ray: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A recording that is not one is refused in one line; a damaged file costs its field."""
    folder, out = damaged_recording(name, tmp_path / "fields"), tmp_path / "run"
    options = ["--plain", "--microscope", "replay", "--stripes", "1", "--out", str(out)]

    assert main.main([*options, "--replay-path", str(folder)]) == code

    told, said = capfd.readouterr()
    assert (f"recording: {FIELDS} positions" in told) == (code != 2)
    if code == 2:
        assert said.count("\n") == 1
        assert not out.exists()
        return
    assert said == ""
    summary = json.loads((out / "summary.json").read_text())
    lost = summary["fields"]["lost"]
    assert summary["status"] == ("partial" if code else "complete")
    assert len(lost) == bool(code)
    assert summary["fields"]["detected"] + len(lost) == FIELDS
    assert all(str(folder) in each["reason"] for each in lost)
