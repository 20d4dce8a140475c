"""The table: parts in any order make one table in the order of labels."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from results.files import write_atomically
from results.table import FIRST_COLUMNS, LAST_COLUMNS, join_parts, remove_parts, write_part


def columns(*labels: int) -> dict[str, np.ndarray]:
    """Rows that hold little but their label."""
    names = (*FIRST_COLUMNS, "area", *LAST_COLUMNS)
    return {name: np.array(labels, float if name != "label" else int) for name in names}


def test_parts_become_one_table_in_order(tmp_path: Path) -> None:
    """Rows stand in the order of their labels, whichever field came first."""
    write_part(tmp_path, 0, 1, columns(20, 40))
    write_part(tmp_path, 1, 0, columns())
    write_part(tmp_path, 0, 0, columns(10, 30))

    count, _ = join_parts(tmp_path, [(0, 1), (1, 0), (0, 0)])

    with (tmp_path / "objects.csv").open() as file:
        assert [int(row["label"]) for row in csv.DictReader(file)] == [10, 20, 30, 40]
    assert count == 4


def test_columns_are_added_to_the_whole_table(tmp_path: Path) -> None:
    """A function of all columns as numbers, in the order of labels, adds columns of any kind."""
    write_part(tmp_path, 0, 1, columns(20))
    write_part(tmp_path, 0, 0, columns(10, 30))

    join_parts(
        tmp_path,
        [(0, 1), (0, 0)],
        lambda table: ({"class": np.array(["a", "b, c", "d"]), "half": table["area"] / 2}, {}),
    )

    with (tmp_path / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["a", "b, c", "d"]
    assert [float(row["half"]) for row in rows] == [5, 10, 15]


def test_a_scan_without_objects_has_a_header(tmp_path: Path) -> None:
    """No object is an answer too: a table with its columns and no row."""
    write_part(tmp_path, 0, 0, columns())

    assert join_parts(tmp_path, [(0, 0)]) == (0, {})
    assert (tmp_path / "objects.csv").read_text().startswith("label,stripe,field,x_um,y_um,z_um,")


def test_a_repeated_part_is_the_same(tmp_path: Path) -> None:
    """A repeated task writes the same bytes and no other file."""
    write_part(tmp_path, 0, 0, columns(1, 2))
    first = {path.name: path.read_bytes() for path in (tmp_path / ".parts").iterdir()}

    write_part(tmp_path, 0, 0, columns(1, 2))

    assert {path.name: path.read_bytes() for path in (tmp_path / ".parts").iterdir()} == first
    remove_parts(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_atomic_write_leaves_no_partial_file(tmp_path: Path) -> None:
    """After a write there is the file with its text and nothing else."""
    write_atomically(tmp_path / "a.json", "old")

    write_atomically(tmp_path / "a.json", "new")

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "new")]
