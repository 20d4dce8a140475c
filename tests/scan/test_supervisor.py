"""What is known of each camera; the test has the clock."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from scan.supervisor import MAX_QUEUED, CameraSupervisor

LIMIT_S, START_S = 5.0, 60.0


@dataclass(frozen=True)
class Shot:
    """An exposure."""

    camera: int
    number: int
    z_um: tuple[float, ...] = (0.0,)


FIRST, SECOND, OTHER = Shot(0, 1), Shot(0, 2), Shot(1, 1)


@pytest.fixture
def cameras() -> CameraSupervisor:
    """Two cameras that have started; the first was asked for two exposures at 0 s."""
    cameras = CameraSupervisor(2, 1, lambda planes: LIMIT_S * planes, START_S)
    for shot in (FIRST, SECOND, OTHER):
        cameras.mark_submitted(shot, 0.0)
    return cameras


def test_a_camera_takes_so_many(cameras: CameraSupervisor) -> None:
    """A camera is available until its queue is full, and again when an exposure ended."""
    assert MAX_QUEUED == 2
    assert not cameras.available(0)
    assert cameras.available(1)
    assert cameras.queued() == [SECOND]

    cameras.mark_ended(FIRST, 1.0)

    assert cameras.available(0)
    assert cameras.queued() == []


def test_when_a_process_dies_only_its_exposure_has_failed(cameras: CameraSupervisor) -> None:
    """Only the exposure in progress failed, for the reason of the death; the order in which that
    becomes known does not matter, also after the process has started again."""
    assert cameras.mark_starting(0, "it died", 1.0)
    assert not cameras.mark_starting(0, "it died", 1.1)
    assert not cameras.available(0)
    assert cameras.mark_started(0) == "it died"

    assert cameras.orphaned(SECOND)
    assert cameras.claim_orphan(SECOND) is None
    assert cameras.claim_orphan(FIRST) == "it died"
    assert not cameras.orphaned(FIRST)
    assert not cameras.orphaned(OTHER)
    assert cameras.available(0)


def test_an_answer_in_the_last_moment_counts(cameras: CameraSupervisor) -> None:
    """A batch that was delivered before the process was ended has not failed."""
    cameras.mark_starting(0, "it hung", 6.0)

    cameras.mark_ended(FIRST, 6.1)

    assert not cameras.orphaned(FIRST)


def test_an_exposure_past_its_limit_hangs(cameras: CameraSupervisor) -> None:
    """The limit counts from when the camera could begin, and each hung camera is reported once."""
    cameras.mark_ended(FIRST, 4.0)
    cameras.mark_ended(OTHER, 4.0)

    assert cameras.take_hung(8.9) == []
    assert cameras.take_hung(9.1) == [(0, True, "no answer from the camera within 5 s")]
    assert cameras.take_hung(99.0) == []


def test_long_exposures_have_a_long_limit() -> None:
    """The limit is that of the exposure's planes."""
    cameras = CameraSupervisor(1, 0, lambda planes: LIMIT_S * planes, START_S)
    cameras.mark_submitted(Shot(0, 1, (0.0, 1.0, 2.0)), 0.0)

    assert cameras.take_hung(14.0) == []
    assert cameras.take_hung(16.0) == [(0, True, "no answer from the camera within 15 s")]


def test_a_camera_that_hangs_while_it_starts_is_dropped(cameras: CameraSupervisor) -> None:
    """It is not restarted again, and both reasons are known."""
    cameras.mark_starting(0, "it died", 1.0)

    silence = "the camera did not open within 60 s"
    assert (0, False, silence) in cameras.take_hung(1.0 + START_S + 0.1)
    cameras.mark_dropped(0, "it was killed")

    assert cameras.dropped(0) == f"it died; {silence}"
    assert not cameras.mark_starting(0, "it died", 70.0)
    assert not cameras.available(0)


def test_a_camera_that_cannot_be_opened_says_why(cameras: CameraSupervisor) -> None:
    """The error of its start follows the reason for which it had to start."""
    cameras.mark_starting(0, "it died", 1.0)
    assert cameras.dropped(0) is None

    cameras.mark_dropped(0, "no such port")

    assert cameras.dropped(0) == "it died; the camera could not be opened: no such port"


def test_the_first_start_has_no_reason() -> None:
    """A camera that starts for the first time is no restart."""
    cameras = CameraSupervisor(1, 0, lambda planes: LIMIT_S, START_S)
    cameras.mark_starting(0, "", 0.0)

    assert cameras.mark_started(0) == ""


def test_retries_are_bounded(cameras: CameraSupervisor) -> None:
    """Each exposure may be repeated as often as the settings say."""
    assert cameras.may_retry(FIRST)
    assert not cameras.may_retry(FIRST)
    assert cameras.may_retry(SECOND)
