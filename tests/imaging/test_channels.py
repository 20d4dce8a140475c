"""Channels are fused by the depth of one: registered, sharp, and each with its own light."""

from __future__ import annotations

import numpy as np
import pytest

from imaging.channels import stack_channels
from imaging.stacking import focus_stack
from tests.imaging.scenes import PLANES, photographed, texture

SIZE = 256
HEIGHT = np.linspace(2.5, 7.5, SIZE)[:, None] * np.ones(SIZE)  # a slope, in planes
STAINS = [texture(SIZE, seed) for seed in (1, 2)]


def stack_of(stain: int, *, raised: float = 0.0) -> np.ndarray:
    return photographed(STAINS[stain], HEIGHT + raised, seed=10 + stain)


def likeness(image: np.ndarray, stain: int) -> float:
    return float(np.corrcoef(image.ravel(), STAINS[stain].ravel())[0, 1])


def test_the_reference_is_fused_as_if_it_were_alone() -> None:
    """Image and depth of the reference are those of its stack alone, wherever it stands."""
    alone = focus_stack(stack_of(0))

    fused = stack_channels([stack_of(1), stack_of(0)], 1, (0.0, 0.0), align=False)

    np.testing.assert_array_equal(fused.image[1], alone.image)
    np.testing.assert_array_equal(fused.depth, alone.depth)


THICKNESS = {
    "the whole stack": (slice(None), 0.0),
    "the planes around the surface": (slice(2, 9), -2.0),
}


@pytest.mark.parametrize(("planes", "shift"), THICKNESS.values(), ids=THICKNESS)
def test_other_channels_are_as_sharp_as_by_their_own_depth(planes: slice, shift: float) -> None:
    """A channel that was captured where the surface lies is fused as well as by itself."""
    stack = stack_of(1)
    alone = likeness(focus_stack(stack).image, 1)

    fused = stack_channels([stack_of(0), stack[planes]], 0, (0.0, shift), align=False)

    assert likeness(fused.image[1], 1) > alone - 0.005


def test_an_offset_is_followed() -> None:
    """A channel that is in focus 1.5 planes higher is sharp by the depth plus that offset."""
    stacks = [stack_of(0), stack_of(1, raised=1.5)]

    right, wrong = (
        likeness(stack_channels(stacks, 0, (0.0, shift), align=False).image[1], 1)
        for shift in (1.5, 0.0)
    )

    assert right > likeness(focus_stack(stacks[1]).image, 1) - 0.005
    assert right > wrong + 0.05


def test_one_plane_is_taken_as_it_is() -> None:
    """A channel of one plane is that plane; so are all channels if the reference has one."""
    plane = stack_of(1)[4:5]

    fused = stack_channels([stack_of(0), plane], 0, (0.0, -5.0), align=False)
    flat = stack_channels([stack_of(0)[3:4], stack_of(1)], 0, (0.0, 5.0), align=False)

    np.testing.assert_array_equal(fused.image[1], plane[0])
    np.testing.assert_array_equal(flat.image[1], stack_of(1)[5])
    assert not flat.depth.any()


def test_a_channel_at_a_step_is_taken_from_the_planes_of_the_reference() -> None:
    """At steps, where a pyramid is fused, channels of fewer planes show the same surface."""
    height = np.where(np.arange(SIZE) < SIZE // 2, 2.0, 8.0) * np.ones((SIZE, 1))
    stacks = [photographed(STAINS[k], height, seed=k) for k in (0, 1)]

    whole = stack_channels(stacks, 0, (0.0, 0.0), align=False)
    fewer = stack_channels([stacks[0], stacks[1][1:10]], 0, (0.0, -1.0), align=False)

    assert likeness(whole.image[1], 1) > likeness(focus_stack(stacks[1]).image, 1) - 0.01
    assert likeness(fewer.image[1], 1) > likeness(whole.image[1], 1) - 0.005


def test_drift_of_the_stage_is_taken_out_of_all_channels() -> None:
    """Planes that drifted alike in all channels are moved back alike: channels stay registered."""
    drift = np.linspace(-4, 4, PLANES).round().astype(int)
    stacks = [stack_of(0), stack_of(1)]
    drifted = [
        np.stack([np.roll(plane, shift, 1) for plane, shift in zip(stack, drift, strict=True)])
        for stack in stacks
    ]

    fused = stack_channels([drifted[0], drifted[1][2:9]], 0, (0.0, -2.0), align=True)

    inner = (slice(16, -16),) * 2
    found = np.corrcoef(fused.image[1][inner].ravel(), STAINS[1][inner].ravel())[0, 1]
    assert found > likeness(focus_stack(stacks[1]).image, 1) - 0.02


def test_flicker_of_one_channel_is_its_own() -> None:
    """Planes of one channel that differ in light are evened out; the others are left as they are,
    and the greatest flicker is told."""
    light = np.random.default_rng(3).uniform(0.8, 1.2, (PLANES, 1, 1))
    steady, uneven = stack_of(0), np.rint(stack_of(1) * light).astype(np.uint16)

    fused = stack_channels([steady, uneven], 0, (0.0, 0.0), align=False)
    even = stack_channels([steady, stack_of(1)], 0, (0.0, 0.0), align=False)

    np.testing.assert_array_equal(fused.image[0], even.image[0])
    assert likeness(fused.image[1], 1) > likeness(even.image[1], 1) - 0.01
    assert fused.flicker > 0.05 > even.flicker
