"""The pictures of the mosaics: what lies on disk, thinned out, and small enough for a page."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.segmentation import find_boundaries

from report import preview
from report.preview import Preview
from results.store import DEPTH, LABELS, STACKED, read_region, shape_of
from scan.channels import Channel, Channels
from tests.report.runs import FakeRun

LAYERS = ("image", "depth", "outlines")
SHAPES = {  # fields of each stripe, edges of a frame, most pixels, longest edge: level and step
    "as it is": ((3, 3), (160, 160), 10**6, 10**4, 0, 1),
    "a coarser level": ((3, 3), (203, 179), 60_000, 10**4, 1, 1),
    "less than the coarsest level": ((3, 2), (203, 179), 9_000, 10**4, 1, 3),
    "much less, and odd": ((3, 3, 1), (161, 203), 900, 10**4, 1, 8),
    "one field": ((1,), (101, 67), 1_000, 10**4, 0, 3),
    "a long stripe": ((16,), (160, 160), 10**6, 700, 2, 1),
    "a stripe longer than that": ((16,), (160, 160), 10**6, 100, 4, 2),
}


def begun(folder: Path, **geometry: object) -> FakeRun:
    """A run with empty mosaics."""
    run = FakeRun(folder, **geometry)  # type: ignore[arg-type]
    run.begin()
    run.focus()
    return run


def preview_of(run: FakeRun) -> Preview:
    """The images of a run without fields."""
    return Preview(run.folder, run.plan.row_cuts, run.plan.column_cuts)


def fill(run: FakeRun, pictures: Preview, skip: int | None = None) -> None:
    """Stack and detect every field but one, and show it."""
    for number, field in enumerate(run.plan.fields):
        if number != skip:
            run.stack(field)
            run.detect(field)
            pictures.add_stacks([(field.stripe, field.field)])
            pictures.add_labels([(field.stripe, field.field)])


def decoded(picture: bytes) -> np.ndarray:
    """The pixels of a file, grey or with the alpha that WebP leaves out if all is opaque."""
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2BGRA) if pixels.shape[2:] == (3,) else pixels


def whole(run: FakeRun, name: str, level: int) -> np.ndarray:
    """A level of a mosaic as it lies on disk."""
    rows, columns = shape_of(run.folder / name, level)
    return read_region(run.folder / name, slice(0, rows), slice(0, columns), level)


@pytest.mark.parametrize(
    ("counts", "frame_px", "most", "longest", "level", "step"), SHAPES.values(), ids=SHAPES
)
def test_pictures_are_every_kth_pixel_of_a_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: tuple[int, ...],
    frame_px: tuple[int, int], most: int, longest: int, level: int, step: int,
) -> None:  # fmt: skip
    """Every layer shows every k-th pixel of the finest level that is small enough, field by field,
    and outlines are the inner boundaries of labels."""
    monkeypatch.setattr(preview, "MAX_PIXELS", most)
    monkeypatch.setattr(preview, "MAX_EDGE_PX", longest)
    run = begun(tmp_path, counts=counts, frame_px=frame_px)
    pictures = preview_of(run)
    fill(run, pictures)

    assert (pictures._level, pictures._step) == (level, step)
    shown = {STACKED: pictures._image, DEPTH: pictures._depth, LABELS: pictures._labels}
    for name, canvas in shown.items():
        np.testing.assert_array_equal(
            np.nan_to_num(canvas), whole(run, name, level)[::step, ::step]
        )
    assert canvas.size <= most
    assert max(canvas.shape) <= longest
    outlines = decoded(pictures.layer("outlines"))
    rims = find_boundaries(whole(run, LABELS, level)[::step, ::step], mode="inner")
    np.testing.assert_array_equal(outlines[..., 3] > 0, rims)
    assert set(map(tuple, outlines[rims])) <= {preview.OUTLINE_BGRA}


def test_missing_fields_are_black_or_transparent(tmp_path: Path) -> None:
    """A missing field, and no other, is black in the mosaic and transparent in other layers."""
    run = begun(tmp_path)
    pictures = preview_of(run)
    missing = run.plan.fields[4]
    fill(run, pictures, skip=4)

    grey, depth, outlines = (decoded(pictures.layer(layer)) for layer in LAYERS)
    core = slice(*missing.rows), slice(*missing.columns)
    half = tuple(slice(span.start // 2, span.stop // 2) for span in core)
    inside = tuple(slice(span.start + 8, span.stop - 8) for span in core)  # JPEG knows blocks
    there = np.ones(depth.shape[:2], bool)
    there[half] = False
    assert grey[inside].max() < 5 < np.median(grey[: core[0].start])
    np.testing.assert_array_equal(depth[..., 3], np.where(there, 255, 0))
    assert not outlines[core].any()
    assert outlines[: core[0].start, : core[1].start].any()


def test_a_field_has_outlines_after_detection(tmp_path: Path) -> None:
    """A field that is stacked but not detected is shown without outlines."""
    run = begun(tmp_path)
    pictures = preview_of(run)
    run.stack(run.plan.fields[0])
    pictures.add_stacks([(0, 0)])

    assert decoded(pictures.layer("image"))[:120, :120].max() > 200
    assert not decoded(pictures.layer("outlines")).any()


def test_many_fields_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures are those of fields that are read one by one, also if one is missing."""
    run = begun(tmp_path)
    one_by_one, at_once = preview_of(run), preview_of(run)
    fill(run, one_by_one, skip=1)
    places = [(f.stripe, f.field) for k, f in enumerate(run.plan.fields) if k != 1]
    monkeypatch.setattr(preview, "MANY_FIELDS", 2)

    at_once.add_stacks(places)
    at_once.add_labels(places)

    for layer in ("image", "depth", "outlines"):
        assert at_once.layer(layer) == one_by_one.layer(layer)


def test_colours_stand_for_heights(tmp_path: Path) -> None:
    """The first and the last colour of viridis stand for the percentiles of depth that are
    returned, and colours between them for heights between."""
    run = begun(tmp_path)
    pictures = preview_of(run)
    fill(run, pictures)

    low, high = np.percentile(run.depth, preview.SHOWN)
    assert pictures.depth_ends_um() == pytest.approx((low, high), abs=0.02 * (high - low))
    share = np.clip((run.depth[::2, ::2] - low) / (high - low), 0, 1)
    viridis = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    shown = decoded(pictures.layer("depth"))[..., :3]
    assert np.abs(shown.astype(int) - viridis).max() < 40  # the file is a lossy one
    assert np.abs(shown.astype(int) - viridis).mean() < 3


@pytest.mark.parametrize("most_bytes", [40_000, 9_000, 2_500])
def test_a_noisy_picture_shrinks_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    """However noisy a mosaic is, no picture is larger than the page has room for, and none is
    smaller than a quarter of that; it keeps its shape and its brightness."""
    monkeypatch.setattr(preview, "MAX_BYTES", dict.fromkeys(preview.MAX_BYTES, most_bytes))
    run = begun(tmp_path)
    rng = np.random.default_rng(2)
    run.image = rng.integers(0, 60_000, run.image.shape).astype(np.uint16)
    run.depth = rng.normal(size=run.depth.shape).astype(np.float32)
    run.labels = rng.integers(0, 9, run.labels.shape).astype(run.labels.dtype)
    pictures = preview_of(run)
    fill(run, pictures)

    for layer in LAYERS:
        picture = pictures.layer(layer)
        rows, columns = decoded(picture).shape[:2]
        assert most_bytes / 8 < len(picture) <= most_bytes
        assert rows / columns == pytest.approx(np.divide(*run.image.shape), rel=0.02)
    assert decoded(pictures.layer("image")).mean() == pytest.approx(127, abs=5)


def test_before_anything_is_stacked_there_are_pictures(tmp_path: Path) -> None:
    """Empty mosaics give a black picture and clear layers of its shape, and no warning."""
    run = begun(tmp_path)
    pictures = preview_of(run)

    grey, depth, outlines = (decoded(pictures.layer(layer)) for layer in LAYERS)
    assert grey.shape == outlines.shape[:2] == run.plan.mosaic_shape
    assert not grey.any()
    assert not depth.any()
    assert not outlines.any()
    assert pictures.depth_ends_um() == (0.0, 1.0)


def test_a_specimen_of_one_brightness_has_a_picture(tmp_path: Path) -> None:
    """Where nothing differs from anything, black and white are no reason to divide by nothing."""
    run = begun(tmp_path)
    run.image[:], run.depth[:] = 300, 2.5
    pictures = preview_of(run)
    fill(run, pictures)

    assert decoded(pictures.layer("image")).std() == 0
    assert (decoded(pictures.layer("depth"))[..., 3] == 255).all()
    assert pictures.depth_ends_um() == (2.5, 2.5)


def test_channels_are_layers_in_their_colours(tmp_path: Path) -> None:
    """Each channel is a picture of its colour, and the image is their sum; there are no others."""
    channels = Channels((Channel("a", "0000FF", 1), Channel("b", "FFFF00", 1)))
    run = FakeRun(tmp_path, channels=channels)
    run.begin()
    run.focus()
    pictures = preview_of(run)
    fill(run, pictures)

    first, second, both = (decoded(pictures.layer(f"{n}")).astype(int)[..., :3]
                           for n in ("channel0", "channel1", "image"))  # fmt: skip

    np.testing.assert_allclose(first[..., 1:].mean(), 0, atol=4)
    np.testing.assert_allclose(second[..., 0].mean(), 0, atol=4)
    assert min(first[..., 0].max(), second[..., 1:].max()) > 230
    assert np.abs(first + second - both).mean() < 6  # JPEG
    assert pictures.layer("channel2") == b""
