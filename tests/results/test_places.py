"""Where results lie: folders and object stores take, give and forget the same things."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from imaging.pyramid import mean_pyramid
from results import places
from results.places import (
    POINTER,
    answer_mark,
    has_answered,
    is_url,
    kvstore,
    leave_mark,
    place_of,
    read_bytes,
    remove,
    remove_marks,
    staged,
    write_bytes,
)
from results.store import STACKED, checksum_of, create_mosaics, level_count, read_region, write_core
from results.table import join_parts, read_table, remove_parts, write_part
from scan.errors import InputError, StorageError
from scan.plan import make_plan
from tests.results.stores import s3_store


@pytest.fixture(scope="module")
def store() -> Iterator[None]:
    """An object store that this process finds by the usual variables."""
    with s3_store("lab") as variables, pytest.MonkeyPatch.context() as patched:
        for name, value in variables.items():
            patched.setenv(name, value)
        yield


@pytest.fixture(params=["folder", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place of either kind, of this test alone."""
    if request.param == "folder":
        return str(tmp_path)
    request.getfixturevalue("store")
    return f"s3://lab/{request.node.name}"


def test_what_is_written_is_read(place: str) -> None:
    """A file lies at its place until it is removed, once more does no harm."""
    assert read_bytes(f"{place}/a.txt") is None
    first = write_bytes(f"{place}/a.txt", b"one")
    assert write_bytes(f"{place}/a.txt", b"two") != first
    assert read_bytes(f"{place}/a.txt") == b"two"
    for _ in range(2):
        remove(f"{place}/a.txt")
        assert read_bytes(f"{place}/a.txt") is None


def test_pixels_and_rows_lie_in_either(place: str) -> None:
    """Cores, checksums, parts and table of a run are the same in a folder and in a store."""
    plan, pixels = make_plan((2,), (64, 64), 0, 1.0, steered=True), np.arange(64 * 64)
    image = pixels.reshape(64, 64).astype(np.uint16)
    create_mosaics(place, plan, image.dtype, np.dtype(np.uint32))
    create_mosaics(place, plan, image.dtype, np.dtype(np.uint32))  # those that are there stay
    field = plan.fields[1]
    core, mosaic = (slice(*field.rows), slice(*field.columns)), f"{place}/{STACKED}"
    written = write_core(mosaic, *core, mean_pyramid(image, level_count(mosaic)))
    for number in (1, 0):
        row = {name: np.array([0.5]) for name in ("x_um", "y_um", "z_um", "score")}
        row |= {name: np.array([number]) for name in ("label", "stripe", "field", "touches_border")}
        write_part(place, 0, number, row)

    np.testing.assert_array_equal(read_region(mosaic, *core), image)
    assert checksum_of(mosaic, *core) == written
    assert join_parts(place, [(0, 0), (0, 1)]) == 2
    assert read_table(place, ["label"])["label"].tolist() == [0, 1]
    remove_parts(place)
    with pytest.raises(FileNotFoundError):
        join_parts(place, [(0, 0)])


def test_nodes_find_out_whether_they_share_a_place(place: str, tmp_path: Path) -> None:
    """A mark is answered where it is seen, its answer is seen by the driver, and all vanish."""
    elsewhere = f"{place}/another"
    assert not answer_mark(elsewhere, "n1")
    leave_mark(place)
    assert answer_mark(place, "n1")
    assert has_answered(place, "n1")
    assert not has_answered(place, "n2")
    remove_marks(place, ["n1", "n2"])
    assert not has_answered(place, "n1")
    assert not answer_mark(place, "n1")


@pytest.mark.usefixtures("store")
def test_small_files_are_copied_to_the_store_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What grows in the folder of a run is soon in the store, all of it in the end, and comes back
    to whoever goes on there; other files are nobody's business."""
    monkeypatch.setattr(places, "COPIED_EVERY_S", 0.01)
    url = "s3://lab/copied"
    with staged(url + "/") as folder:
        assert place_of(folder) == url
        (folder / "events.jsonl").write_text("one\n")
        (folder / "other.txt").write_text("mine")
        awaited(lambda: read_bytes(f"{url}/events.jsonl") == b"one\n")
        (folder / "events.jsonl").write_text("one\ntwo\n")
        (folder / "summary.json").write_text("{}")
    assert not folder.exists()
    assert read_bytes(f"{url}/other.txt") is None
    with staged(url) as again:
        assert {path.name for path in again.iterdir()} == {POINTER, "events.jsonl", "summary.json"}
        assert (again / "events.jsonl").read_text() == "one\ntwo\n"


def awaited(met: Callable[[], bool]) -> None:
    """Return once something is so, which another thread brings about."""
    for _ in range(10_000):
        if met():
            return
    pytest.fail("it never came about")


@pytest.mark.usefixtures("store")
def test_what_cannot_be_copied_in_the_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store is gone at the end, the folder stays, and the message says where it is."""
    monkeypatch.setattr(places, "COPIED_EVERY_S", 999.0)
    around = ExitStack()
    folder = around.enter_context(staged("s3://lab/gone"))
    (folder / "events.jsonl").write_text("one\n")
    monkeypatch.setattr(places, "write_bytes", no_answer)

    with pytest.raises(StorageError, match="journal, summary and report are kept in") as told:
        around.close()

    assert str(folder) in str(told.value)
    assert (folder / "events.jsonl").read_text() == "one\n"
    shutil.rmtree(folder)


def no_answer(place: str, data: bytes) -> int:
    """The store is gone."""
    raise StorageError(place, "an object store that answers", "none", "wait")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("url", "said"),
    [("s3:/lab/run", "a URL with ://"), ("s3://nobody/run", "an object store that answers")],
)
def test_a_place_that_cannot_be_is_a_mistake(url: str, said: str) -> None:
    """A mistyped URL and a bucket that is not there are told before anything begins."""
    with pytest.raises(InputError, match=said), staged(url):
        pytest.fail("it began")


@pytest.mark.usefixtures("store")
def test_pixels_are_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that falls silent in the midst of a scan is told as one that does not answer."""
    plan, image = make_plan((1,), (64, 64), 0, 1.0, steered=True), np.ones((64, 64), np.uint16)
    create_mosaics("s3://lab/silent", plan, image.dtype, np.dtype(np.uint32))
    mosaic, core = f"s3://lab/silent/{STACKED}", (slice(0, 64), slice(0, 64))
    levels = mean_pyramid(image, level_count(mosaic))
    monkeypatch.setattr(places, "ANSWER_S", 1e-6)  # too soon for any

    with pytest.raises(StorageError, match="an object store that answers, got no answer within"):
        write_core(mosaic, *core, levels)


@pytest.mark.parametrize("url", ["ftp://host/run", "s3://", "s4://lab/run", "://run"])
def test_urls_of_another_kind_are_refused_in_one_line(url: str) -> None:
    """A URL that no store answers to is told, and which would be."""
    with pytest.raises(InputError, match=r"such as s3://bucket/run or gs://bucket/run"):
        kvstore(url)


def test_urls_name_driver_bucket_and_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of object store are opened by their bucket and the path in it."""
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)

    assert kvstore("gs://lab/runs/1") == {"driver": "gcs", "bucket": "lab", "path": "runs/1/"}
    assert kvstore("s3://lab") == {"driver": "s3", "bucket": "lab", "path": ""}
    assert is_url("s3://lab")
    assert not is_url(Path("runs"))


@pytest.mark.usefixtures("store")
def test_a_bucket_that_is_not_there_is_told() -> None:
    """Whatever keeps the store from answering is one line that says what to check."""
    with pytest.raises(StorageError, match=r"s3://nobody/a.*an object store that answers") as told:
        write_bytes("s3://nobody/a", b"")

    assert "\n" not in str(told.value)


def test_a_store_that_does_not_answer_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is not there is given up, long before the store's own patience ends."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        monkeypatch.setattr(places, "ANSWER_S", 1.0)
        with pytest.raises(StorageError, match="no answer within 1 s"):
            read_bytes("s3://silent/a")
