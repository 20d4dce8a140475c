"""Z-stacks of images that are sharp all over: as if every labelled object lay at its own height.

The image is shared out among its objects, each with a soft rim, and the ground that is left. Every
share is blurred by its own distance from the plane and all are added up: no light is lost, and the
light of a blurred object lies over its neighbours, as in a widefield microscope.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float64]
Labels = NDArray[np.int32]

CELL_UM = 10.0  # what the typical object of an image is taken to measure
SPREAD_PER_UM = 0.29  # deviation of the blur over defocus, tan(asin(0.5)) / 2
RIM_PX, RIM_SIGMA_PX = 2, 1.0  # labels are drawn tight: an object's light goes on a little
BLUR_REACH = 4.0  # deviations


def z_stack(
    image: NDArray[np.generic],
    labels: Labels,
    planes: int,
    step_um: float,
    generator: np.random.Generator,
) -> tuple[NDArray[np.generic], Image]:
    """Planes (z, y, x) in the image's dtype, with noise of their own, and the true depth (y, x).

    Objects lie anywhere in depth, the ground in the middle; depth is that of the nearest object.
    """
    light, noise = image.astype(np.float64), noise_of(image)
    blur_px = SPREAD_PER_UM * step_um / CELL_UM * typical_diameter(labels)  # per plane
    shares = shares_of(light, labels)
    depths = np.r_[(planes - 1) / 2, generator.uniform(0, planes - 1, len(shares) - 1)]
    stack = np.zeros((planes, *image.shape))
    for (corner, share), depth in zip(shares, depths, strict=True):
        for z, plane in enumerate(stack):
            add_blurred(plane, share, corner, blur_px * abs(z - depth))
    stack += generator.normal(0, noise, stack.shape)
    limits = np.iinfo(image.dtype)
    taken = np.clip(np.rint(stack), limits.min, limits.max).astype(image.dtype)
    return taken, nearest_depth(labels, depths[1:])


def nearest_depth(labels: Labels, depths: NDArray[np.float64]) -> Image:
    """The depth of the object nearest to each pixel; depths are in the order of the labels."""
    depth_of = np.zeros(labels.max() + 1)
    depth_of[np.unique(labels[labels > 0])] = depths
    nearest = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True
    )
    return depth_of[labels[tuple(nearest)]]


def typical_diameter(labels: Labels) -> float:
    """Median diameter in pixels of the circles of the objects' areas."""
    areas = np.bincount(labels.ravel())[1:]
    return float(np.sqrt(np.median(areas[areas > 0]) * 4 / np.pi))


def noise_of(image: NDArray[np.generic]) -> float:
    """Deviation of single pixels, from second differences along rows."""
    second = np.diff(image.astype(np.float64), 2, axis=1)
    return float(1.4826 * np.median(np.abs(second - np.median(second))) / np.sqrt(6))


def shares_of(light: Image, labels: Labels) -> list[tuple[tuple[int, int], Image]]:
    """The ground and every object as (corner, light); together they are the image."""
    reach = RIM_PX + int(3 * RIM_SIGMA_PX)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RIM_PX + 1,) * 2)
    total, masks = np.zeros(light.shape), []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        wide = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in box)
        body = cv2.dilate((labels[wide] == number).astype(np.uint8), disc).astype(np.float64)
        mask = cv2.GaussianBlur(body, (0, 0), RIM_SIGMA_PX)
        total[wide] += mask
        masks.append((wide, mask))
    crowded = np.maximum(total, 1)  # where rims overlap they share the light
    ground = light * (1 - total / crowded)
    objects = [((w[0].start, w[1].start), light[w] * mask / crowded[w]) for w, mask in masks]
    return [((0, 0), ground), *objects]


def add_blurred(plane: Image, share: Image, corner: tuple[int, int], sigma: float) -> None:
    """Add a share to a plane in place, blurred; the ground is mirrored at the image's edge."""
    if share.shape == plane.shape:
        plane += blurred(share, sigma, cv2.BORDER_REFLECT)
        return
    reach = int(np.ceil(BLUR_REACH * sigma))
    wide = cv2.copyMakeBorder(share, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=0)
    wide = blurred(wide, sigma, cv2.BORDER_CONSTANT)
    top, left = corner[0] - reach, corner[1] - reach
    rows = slice(max(0, top), min(plane.shape[0], top + wide.shape[0]))
    columns = slice(max(0, left), min(plane.shape[1], left + wide.shape[1]))
    plane[rows, columns] += wide[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]


def blurred(share: Image, sigma: float, border: int) -> Image:
    return cv2.GaussianBlur(share, (0, 0), sigma, borderType=border) if sigma > 0.05 else share
