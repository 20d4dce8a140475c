"""Folders and object stores behave alike: what is written is read, replaced and removed."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from imaging.pyramid import mean_pyramid
from results import mirror, storage
from results.storage import POINTER, Folder, ObjectStore, location_of, storage_at
from results.store import (
    STACKED,
    checksums_of,
    create_mosaics,
    level_count,
    read_region,
    write_core,
)
from results.table import join_parts, read_table, remove_parts, write_part
from scan.errors import InputError, StorageError, UserMistake
from scan.layout import make_plan
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
    files = storage_at(place)
    for name in ("a.txt", "below/a.txt"):
        assert files.read_bytes(name) is None
        first = files.write_bytes(name, b"one")
        assert files.write_bytes(name, b"two") != first
        assert files.read_bytes(name) == b"two"
        for _ in range(2):
            files.remove(name)
            assert files.read_bytes(name) is None


def test_a_tree_is_removed_and_nothing_else(place: str) -> None:
    """All files below a name are removed; those whose names only begin alike stay."""
    files = storage_at(place)
    for name in ("tree/a", "tree/b", "tree-a", "tree.csv"):
        files.write_bytes(name, b"x")

    files.remove_tree("tree")

    left = [n for n in ("tree/a", "tree/b", "tree-a", "tree.csv") if files.read_bytes(n)]
    assert left == ["tree-a", "tree.csv"]


def test_pixels_and_rows_lie_in_either(place: str) -> None:
    """Cores, checksums, parts and table of a run are the same in a folder and in a store."""
    plan, pixels = make_plan((2,), (64, 64), 0, 1.0, steered=True), np.arange(64 * 64)
    image = pixels.reshape(64, 64).astype(np.uint16)
    create_mosaics(place, plan, image.dtype)
    create_mosaics(place, plan, image.dtype)  # those that are there stay
    field = plan.fields[1]
    core, mosaic = (slice(*field.rows), slice(*field.columns)), f"{place}/{STACKED}"
    written = write_core(mosaic, *core, mean_pyramid(image, level_count(mosaic)))
    for number in (1, 0):
        row = {name: np.array([0.5]) for name in ("x_um", "y_um", "z_um", "score")}
        row |= {name: np.array([number]) for name in ("label", "stripe", "field", "touches_border")}
        write_part(place, 0, number, row)

    np.testing.assert_array_equal(read_region(mosaic, *core), image)
    assert checksums_of(mosaic, core[0], [core[1]]) == [written]
    assert join_parts(place, [(0, 0), (0, 1)]) == (2, {})
    assert read_table(place, ["label"])["label"].tolist() == [0, 1]
    remove_parts(place)
    with pytest.raises(FileNotFoundError):
        join_parts(place, [(0, 0)])


def test_a_probe_shows_whether_nodes_share_a_storage(place: str) -> None:
    """A probe is answered where it is seen, the driver sees the answer, and all are removed."""
    shared, another = storage_at(place), storage_at(f"{place}/another")
    shared.write_probe()
    assert not another.answer_probe("n1")
    assert shared.answer_probe("n1")
    assert shared.probe_answered("n1")
    assert not shared.probe_answered("n2")
    shared.remove_probes(["n1", "n2"])
    assert not shared.probe_answered("n1")
    assert not shared.answer_probe("n1")


@pytest.mark.usefixtures("store")
def test_small_files_are_copied_to_the_store_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are copied while they grow and at the end, and fetched again by the next run;
    other files are not copied."""
    monkeypatch.setattr(mirror, "COPY_INTERVAL_S", 0.01)
    url = "s3://lab/copied"
    files = storage_at(url)
    with storage_at(url + "/").local_folder() as folder:
        assert location_of(folder) == url
        (folder / "events.jsonl").write_text("one\n")
        (folder / "other.txt").write_text("mine")
        awaited(lambda: files.read_bytes("events.jsonl") == b"one\n")
        (folder / "events.jsonl").write_text("one\ntwo\n")
        (folder / "summary.json").write_text("{}")
    assert not folder.exists()
    assert files.read_bytes("other.txt") is None
    with files.local_folder() as again:
        assert {path.name for path in again.iterdir()} == {POINTER, "events.jsonl", "summary.json"}
        assert (again / "events.jsonl").read_text() == "one\ntwo\n"


def awaited(met: Callable[[], bool]) -> None:
    """Wait for a condition that another thread makes true."""
    for _ in range(10_000):
        if met():
            return
    pytest.fail("the condition was never met")


@pytest.mark.usefixtures("store")
def test_files_that_cannot_be_copied_at_the_end_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the store is gone at the end, the folder stays, and the message says where it is."""
    monkeypatch.setattr(mirror, "COPY_INTERVAL_S", 999.0)
    around = ExitStack()
    folder = around.enter_context(storage_at("s3://lab/gone").local_folder())
    (folder / "events.jsonl").write_text("one\n")
    storage_at("s3://lab/gone")._store  # noqa: B018  (opened while there is a store)
    monkeypatch.setattr(storage, "ANSWER_S", 0.0)

    with pytest.raises(StorageError, match="journal, summary and report are kept in") as raised:
        around.close()

    assert str(folder) in str(raised.value)
    assert (folder / "events.jsonl").read_text() == "one\n"
    shutil.rmtree(folder)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("url", "said"),
    [("s3:/lab/run", "a URL with ://"), ("s3://nobody/run", "an object store that answers")],
)
def test_an_impossible_location_is_a_mistake(url: str, said: str) -> None:
    """A mistyped URL and a bucket that does not exist are refused before the run starts."""
    with pytest.raises(InputError, match=said), storage_at(url).local_folder():
        pytest.fail("it started")


@pytest.mark.usefixtures("store")
def test_pixels_have_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that stops answering during a scan raises StorageError within a limit."""
    plan, image = make_plan((1,), (64, 64), 0, 1.0, steered=True), np.ones((64, 64), np.uint16)
    create_mosaics("s3://lab/silent", plan, image.dtype)
    mosaic, core = f"s3://lab/silent/{STACKED}", (slice(0, 64), slice(0, 64))
    levels = mean_pyramid(image, level_count(mosaic))
    monkeypatch.setattr(storage, "ANSWER_S", 1e-6)  # too short for any answer

    with pytest.raises(StorageError, match="an object store that answers, got no answer within"):
        write_core(mosaic, *core, levels)


@pytest.mark.parametrize("url", ["ftp://host/run", "s3://", "s4://lab/run", "://run"])
def test_urls_of_another_kind_are_refused_in_one_line(url: str) -> None:
    """The message for a URL of an unknown kind names the known ones."""
    with pytest.raises(InputError, match=r"such as s3://bucket/run or gs://bucket/run"):
        storage_at(url)


def test_a_relative_folder_is_not_the_same_on_all_nodes(tmp_path: Path) -> None:
    """A relative path is refused for a cluster; an absolute one and a URL are accepted."""
    storage_at(tmp_path).check_same_on_all_nodes()
    storage_at("s3://lab/run").check_same_on_all_nodes()
    with pytest.raises(UserMistake, match="--out runs/1: expected an absolute path"):
        storage_at("runs/1").check_same_on_all_nodes()


def test_room_is_checked_before_the_scan(tmp_path: Path) -> None:
    """Results that do not fit on the disk are refused with both numbers."""
    storage_at(tmp_path).check_disk_space(1000)
    storage_at("s3://lab/run").check_disk_space(10**17)

    with pytest.raises(InputError, match=r"room for 10+ bytes of results, got \d+ bytes free"):
        storage_at(tmp_path).check_disk_space(10**17)


def test_urls_name_driver_bucket_and_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of object store are opened by their bucket and the path in it."""
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)

    google, amazon = storage_at("gs://lab/runs/1"), storage_at("s3://lab")
    assert google.kvstore() == {"driver": "gcs", "bucket": "lab", "path": "runs/1/"}
    assert google.kvstore("0") == {"driver": "gcs", "bucket": "lab", "path": "runs/1/0/"}
    assert amazon.kvstore() == {"driver": "s3", "bucket": "lab", "path": ""}
    assert amazon.kvstore("0")["path"] == "0/"
    assert isinstance(amazon, ObjectStore)
    assert isinstance(storage_at(Path("runs")), Folder)


@pytest.mark.usefixtures("store")
def test_a_missing_bucket_is_one_line() -> None:
    """The reason why a store does not answer is one line that says what to check."""
    with pytest.raises(
        StorageError, match=r"s3://nobody/a.*an object store that answers"
    ) as raised:
        storage_at("s3://nobody").write_bytes("a", b"")

    assert "\n" not in str(raised.value)


def test_a_store_that_does_not_answer_has_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request to a missing server fails long before tensorstore stops retrying."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # no server listens
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        monkeypatch.setattr(storage, "ANSWER_S", 1.0)
        with pytest.raises(StorageError, match="no answer within 1 s"):
            storage_at("s3://silent").read_bytes("a")
