"""Scans in this process leave no report and no trace, which cost two seconds each, unless asked."""

from __future__ import annotations

import pytest

from report import ending


@pytest.fixture(autouse=True)
def without_views(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of what people look at, and of disks that fail, are marked `views`."""
    if not request.node.get_closest_marker("views"):
        monkeypatch.setattr(ending, "write_views", lambda folder, events, task_events: [])
