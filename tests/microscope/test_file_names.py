"""Names of files tell where planes belong, or are refused with what was understood."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microscope.coordinates import Unclear, natural_key
from microscope.file_names import read_names


def names_of(form: str, **axes: Iterable[object]) -> list[str]:
    """Every combination of values, as names."""
    return [form.format(**dict(zip(axes, each, strict=True))) for each in product(*axes.values())]


UUID = "_w{c}0AF3B2C1-1234-4ABC-89AB-0123456789AB"
POSITIONS, PLANES, CHANNELS = range(3), range(4), range(1, 3)

# Names as programs write them, and the counts of positions, planes, channels and times in them.
PROGRAMS = {
    "Micro-Manager 2": (
        names_of("img_channel{c:03}_position{p:03}_time000000000_z{z:03}",
                 c=CHANNELS, p=POSITIONS, z=PLANES), (3, 4, 2, 1)),
    "Micro-Manager 2 without channels": (
        names_of("img_position{p:03}_z{z:03}", p=POSITIONS, z=PLANES), (3, 4, 1, 1)),
    "Micro-Manager 2, a folder for each position": (
        names_of("{p}/img_channel{c:03}_z{z:03}", p=["A1-Site_0", "A1-Site_1"], c=CHANNELS,
                 z=PLANES), (2, 4, 2, 1)),
    "Micro-Manager 1.4": (
        names_of("Pos{p}/img_{t:09}_{c}_{z:03}", p=POSITIONS, t=range(2), c=["DAPI", "Cy_5"],
                 z=PLANES), (3, 4, 2, 2)),
    "Operetta": (
        names_of("r{r:02}c02f{f:02}p{z:02}-ch{c}sk1fk1fl1", r=range(1, 3), f=POSITIONS, z=PLANES,
                 c=CHANNELS), (6, 4, 2, 1)),
    "ImageXpress": (
        names_of("TimePoint_1/ZStep_{z}/PLATE_C05_s{s}" + UUID, z=PLANES, s=POSITIONS, c=CHANNELS),
        (3, 4, 2, 1)),
    "ImageXpress without sites": (
        names_of("ZStep_{z}/PLATE_{w}_w{c}", z=PLANES, w=["C05", "D11"], c=CHANNELS), (2, 4, 2, 1)),
    "InCarta": (
        names_of("t1_{w}_s{s}_w{c}_z{z}", w=["D04", "E10"], s=POSITIONS, c=CHANNELS, z=PLANES),
        (6, 4, 2, 1)),
    "InCell": (
        names_of("A - 01(fld {f} wv {c} z {z})", f=POSITIONS, c=["Green - dsRed", "UV - DAPI"],
                 z=PLANES), (3, 4, 2, 1)),
    "CellVoyager": (
        names_of("PLATE_{w}_T0001F{f:03}L01A01Z{z:02}C{c:02}", w=["B02", "B03"], f=POSITIONS,
                 z=PLANES, c=CHANNELS), (6, 4, 2, 1)),
    "CQ1": (
        names_of("W{w:04}F{f:04}T0001Z{z:03}C{c}", w=[18, 19], f=POSITIONS, z=PLANES, c=CHANNELS),
        (6, 4, 2, 1)),
    "Leica": (
        names_of("Series{s:03}_z{z:02}_ch{c:02}", s=POSITIONS, z=PLANES, c=CHANNELS), (3, 4, 2, 1)),
    "Leica, tiles": (
        names_of("Embryo01_t{t:02}_s{s:02}_z{z:02}_ch00", t=range(2), s=POSITIONS, z=PLANES),
        (3, 4, 1, 2)),
    "Zeiss": (
        names_of("scan_s1z{z:02}c{c}m{m:03}_ORG", z=PLANES, c=CHANNELS, m=POSITIONS), (3, 4, 2, 1)),
    "Squid": (
        names_of("0/R0_{f}_{z}_Fluorescence_{c}_nm_Ex", f=POSITIONS, z=PLANES, c=[405, 488]),
        (3, 4, 2, 1)),
    "OpenFlexure": (
        names_of("image_{x}_{y}_{z}", x=[-1200, 0, 1200], y=[0, 900], z=[-5, 0, 5]), (6, 3, 1, 1)),
    "ScanR": (
        names_of("a--W00016--P{p:05}--Z{z:05}--T00000--{c}", p=POSITIONS, z=PLANES,
                 c=["GFP", "DAPI"]), (3, 4, 2, 1)),
    "Cellomics": (
        names_of("PLATE_{w}f{f:02}d{c}", w=["A01", "B02"], f=POSITIONS, c=CHANNELS), (6, 1, 2, 1)),
    "EVOS": (
        names_of("run_Plate_R_p00_z{z:02}_0_{w}f{f:02}d{c}", z=PLANES, w=["A01", "B02"],
                 f=POSITIONS, c=CHANNELS), (6, 4, 2, 1)),
    "Keyence": (
        names_of("scan_XY{p:02}_00001_Z{z:03}_CH{c}", p=POSITIONS, z=PLANES, c=CHANNELS),
        (3, 4, 2, 1)),
    "NIS-Elements": (
        names_of("cellst{t:02}xy{p:02}z{z:02}c{c}", t=range(2), p=POSITIONS, z=PLANES, c=CHANNELS),
        (3, 4, 2, 2)),
    "BD Pathway": (names_of("{c} - n{z:06}", c=["GFP", "DAPI"], z=PLANES), (1, 4, 2, 1)),
    "Incucyte": (
        names_of("VID1957_phase_{w}_{s}_{t}", w=["E11", "E12"], s=[5, 6],
                 t=["06d12h05m", "06d14h05m"]), (4, 1, 1, 2)),
}  # fmt: skip
# Names of no known program.
TOKENS = {
    "z": (names_of("z{z}", z=range(9, 12)), (1, 3, 1, 1)),
    "numbers alone": (names_of("{z:04}", z=PLANES), (1, 4, 1, 1)),
    "numbers after a dash": (names_of("image-{z:03}", z=PLANES), (1, 4, 1, 1)),
    "numbers after a dot": (names_of("scan1.{z:03}", z=PLANES), (1, 4, 1, 1)),
    "position, z, channel": (
        names_of("a_pos{p}_z{z}_ch{c}", p=POSITIONS, z=PLANES, c=CHANNELS), (3, 4, 2, 1)),
    "another order": (
        names_of("pos{p}_z{z}_t{t}_ch{c}", p=POSITIONS, z=PLANES, t=range(2), c=CHANNELS),
        (3, 4, 2, 2)),
    "keyword apart": (names_of("Pos-{p}_Z_{z}", p=POSITIONS, z=PLANES), (3, 4, 1, 1)),
    "words of channels": (
        names_of("s{p}_z{z}_{c}", p=POSITIONS, z=PLANES, c=["DAPI", "Cy5", "GFP"]), (3, 4, 3, 1)),
    "laser lines": (names_of("z{z}_{c}", z=PLANES, c=[405, 488, 561]), (1, 4, 3, 1)),
    "wells": (names_of("{w}_s{s}_z{z}", w=["A01", "C12"], s=[1, 2], z=PLANES), (4, 4, 1, 1)),
    "folders": (names_of("{f}/z{z}", f=["tumour", "healthy"], z=PLANES), (2, 4, 1, 1)),
    "folders of channels": (names_of("{c}/z{z}", c=["DAPI", "GFP"], z=PLANES), (1, 4, 2, 1)),
    "folders of different words": (
        names_of("{f}/{c}/z{z}", f=["control", "drug A"], c=["DAPI", "GFP"], z=PLANES),
        (2, 4, 2, 1)),
    "letters that are no wells": (
        names_of("r{r}_c{c}", r=range(2), c=range(3)), (6, 1, 1, 1)),
    "row and column": (
        names_of("tile_r{r}_c{c}_z{z}", r=range(2), c=range(3), z=PLANES), (6, 4, 1, 1)),
    "x and y": (names_of("tile_x{x}_y{y}_z{z}", x=range(3), y=range(2), z=PLANES), (6, 4, 1, 1)),
    "index and height": (
        [f"img_{k:03}_z{k * 0.5:.1f}um" for k in range(4)], (1, 4, 1, 1)),
    "a running number": (
        [f"{k:04}_pos{k // 4}_z{k % 4}" for k in range(12)], (3, 4, 1, 1)),
    "a date that is the same": (names_of("2026-11-28_z{z}", z=PLANES), (1, 4, 1, 1)),
}  # fmt: skip


def counts(names: list[str], **options: object) -> tuple[int, ...]:
    """Positions, planes, channels and times that are read from names."""
    found = read_names(names, **({"single_planes": True} | options)).coordinates.values()
    assert len(set(found)) == len(names)  # no two planes at one place
    return tuple(
        len({getattr(each, axis) for each in found})
        for axis in ("position", "z", "channel", "time")
    )


@pytest.mark.parametrize("case", PROGRAMS)
def test_names_of_programs_are_understood(case: str) -> None:
    """Names as a program writes them have its positions, planes, channels and times."""
    names, expected = PROGRAMS[case]

    assert counts(names) == expected


@pytest.mark.parametrize("case", TOKENS)
def test_names_of_no_program_are_understood(case: str) -> None:
    """The letters before numbers say what they are; a lone number counts planes."""
    names, expected = TOKENS[case]

    assert counts(names) == expected


HEIGHTS = {
    "signed": (["z-4.0um", "z+0.0um", "z+4.0um"], [-4, 0, 4]),
    "negative": (["z-2", "z-1", "z0", "z1"], [-2, -1, 0, 1]),
    "decimals": (["z0.25", "z10.00", "z2.50"], [0.25, 10, 2.5]),
    "nanometres": (["z250nm", "z500nm"], [0.25, 0.5]),
    "micrometres": (["z_5um", "z_10um"], [5, 10]),
    "indices": (["z1", "z2"], [None, None]),
    "a dash before all": (["z-1", "z-2"], [None, None]),
}


@pytest.mark.parametrize(("names", "heights"), HEIGHTS.values(), ids=HEIGHTS)
def test_heights_in_names_are_lengths(names: list[str], heights: list[float | None]) -> None:
    """Signs, decimals and units make a height; plain numbers, and a dash before all, do not."""
    found = read_names(names, single_planes=True).coordinates

    assert [found[name].z_um for name in names] == heights


REFUSED = {
    "two numbers": (names_of("{a}_{b}", a=range(2), b=range(3)), "numbers"),
    "words": (["near", "middle", "far"], "words"),
    "plane or position": (names_of("p{p}", p=PLANES), "plane or position"),
    "slice or site": (names_of("s{p:03}", p=PLANES), "slice, site or series"),
    "parts that differ": (["z1", "z2", "z3", "cells_of_monday"], "'cells_of_monday'"),
    "a letter beside z": (names_of("z{a}_d{b}", a=range(2), b=range(3)), "'d'"),
    "two that are z": (names_of("z{a}_slice{b}", a=range(2), b=range(3)), "'slice'"),
}


@pytest.mark.parametrize(("names", "said"), REFUSED.values(), ids=REFUSED)
def test_names_that_may_mean_two_things_are_refused(names: list[str], said: str) -> None:
    """The refusal says which parts vary, and how to say what they are."""
    with pytest.raises(Unclear) as refused:
        read_names(names, single_planes=True)

    assert said in refused.value.args[1]
    assert "name_pattern" in refused.value.args[2]


OWN = {
    "of the manual": (
        "r{row}c{col}f{field}p{z}-ch{channel}", PROGRAMS["Operetta"][0], (6, 4, 2, 1)),
    "plane, not position": ("p{z}", names_of("p{p}", p=PLANES), (1, 4, 1, 1)),
    "position, not plane": ("p{position}", names_of("p{p}", p=PLANES), (4, 1, 1, 1)),
    "two numbers": ("{position}_{z}", names_of("{a}_{b}", a=range(2), b=range(3)), (2, 3, 1, 1)),
    "names of channels": (
        "{channel}_z{z}", names_of("{c}_z{z}", c=["wide_red", "x"], z=PLANES), (1, 4, 2, 1)),
    "anything between": (
        "pos{position}_*_z{z}", [f"pos{p}_{7 * p + z}_z{z}" for p in POSITIONS for z in PLANES],
        (3, 4, 1, 1)),
}  # fmt: skip


@pytest.mark.parametrize(("pattern", "names", "expected"), OWN.values(), ids=OWN)
def test_a_users_pattern_decides(pattern: str, names: list[str], expected: tuple[int, ...]) -> None:
    """Placeholders say what parts of names are; nothing else is tried."""
    assert counts(names, name_pattern=pattern) == expected


def test_a_pattern_that_fits_no_name_is_refused() -> None:
    """The refusal shows a name that does not fit."""
    with pytest.raises(Unclear) as refused:
        read_names(["z1", "z2"], single_planes=True, name_pattern="slice{z}")

    assert "z1" in refused.value.args[1]


STRAYS = {
    "a projection by ImageJ": (names_of("z{z}", z=PLANES), "MAX_z"),
    "a thumbnail": (names_of("z{z}", z=PLANES), "z0_thumb"),
    "an overview": (names_of("pos{p}_z{z}", p=POSITIONS, z=PLANES), "overview"),
    "ImageXpress's projection": (
        names_of("ZStep_{z}/PLATE_C05_s{s}_w1", z=PLANES, s=POSITIONS), "PLATE_C05_s1_w1"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "stray"), STRAYS.values(), ids=STRAYS)
def test_projections_and_thumbnails_are_left_out(names: list[str], stray: str) -> None:
    """Pictures made from the planes are no planes; they are named."""
    reading = read_names([*names, stray], single_planes=True)

    assert reading.left_out == (stray,)
    assert set(reading.coordinates) == set(names)


def test_projections_alone_are_images() -> None:
    """What is all of a recording is not left out of it."""
    names = names_of("MAX_pos{p}", p=POSITIONS)

    assert counts(names) == (3, 1, 1, 1)


def test_stacks_differ_in_position() -> None:
    """Files of several planes are positions, whatever they are called; channels stay channels."""
    assert counts(["left", "right"], single_planes=False) == (2, 1, 1, 1)
    assert counts(["1", "2"], single_planes=False) == (2, 1, 1, 1)
    assert counts(["DAPI", "GFP"], single_planes=False) == (1, 1, 2, 1)


def test_stacks_that_differ_in_t_are_tiles_with_a_line() -> None:
    """The letter may mean time; beside positions it does, and as a word."""
    tiles = read_names(["t0", "t1"], single_planes=False)

    assert {each.position for each in tiles.coordinates.values()} == {(0,), (1,)}
    assert "tiles" in tiles.guesses[0]
    assert counts(["time0", "time1"], single_planes=False) == (1, 1, 1, 2)
    names = names_of("pos{p}_t{t}", p=POSITIONS, t=range(2))
    assert counts(names, single_planes=False) == (3, 1, 1, 2)


def test_a_grid_in_names_is_a_layout() -> None:
    """Rows and columns, or x and y, say which fields are neighbours; wells are none."""
    tiles = read_names(names_of("x{x}_y{y}", x=range(3), y=range(2)), single_planes=False)
    letters = read_names(names_of("r{r}_c{c}", r=range(2), c=range(3)), single_planes=False)
    wells = read_names(PROGRAMS["Operetta"][0], single_planes=True)

    assert tiles.coordinates["x2_y1"].cell == (1, 2)
    assert letters.coordinates["r1_c2"].cell == (1, 2)
    assert {each.cell for each in wells.coordinates.values()} == {None}


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=9, unique=True))
def test_names_are_sorted_as_people_count(numbers: list[int]) -> None:
    """Names that differ in a number are sorted by that number, padded with zeros or not."""
    names = [f"Scan2_z{number}" for number in numbers]

    found = read_names(names, single_planes=True).coordinates

    assert sorted(names, key=lambda name: natural_key(found[name].z or 0)) == [
        f"Scan2_z{number}" for number in sorted(numbers)
    ]
    assert sorted(names, key=natural_key) == [f"Scan2_z{number}" for number in sorted(numbers)]
