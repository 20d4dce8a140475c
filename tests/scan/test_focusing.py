"""Which fields are swept before a scan."""

from __future__ import annotations

from typing import Any

import pytest

from config import validate
from scan.focusing import FocusJob
from scan.layout import make_plan

SLIDES: dict[str, tuple[dict[str, Any], bool, tuple[int, ...], int]] = {
    # settings, whether heights are recorded, fields of each stripe, samples
    "a microscope": ({}, False, (8,) * 5, 30),
    "a recording": ({}, True, (8,) * 5, 9),
    "a large recording": ({}, True, (20,) * 20, 20),
    "a recording of few fields": ({}, True, (4,), 4),
    "a recording that shows the flat": ({"flat_field": "estimate"}, True, (8,) * 5, 30),
    "fewer by the settings": ({"focus_samples": 1}, True, (8,) * 5, 5),
}


@pytest.mark.parametrize(("given", "recorded", "counts", "samples"), SLIDES.values(), ids=SLIDES)
def test_so_many_fields_are_swept(
    given: dict[str, Any], recorded: bool, counts: tuple[int, ...], samples: int
) -> None:
    """A recording needs no focus: a few of its fields, from end to end, show the specimen."""
    settings = validate({"stripes": len(counts), "fields": max(counts)} | given)
    plan = make_plan(counts, (128, 128), 32, 0.5, steered=False)
    job = FocusJob(plan, settings, 5, 1.0, (0.0, 1.0, 2.0, 3.0, 4.0) if recorded else None)

    found = job.samples

    assert len(set(found)) == len(found) == samples
    assert found == sorted(found, key=plan.fields.index)
    assert (found[0], found[-1].stripe) == (plan.fields[0], len(counts) - 1)
