"""The loops of detection that numpy cannot run at memory speed: smooth, split, measure.

Invariant: what becomes of a connected region depends on its own pixels and the light around it
only, ties go to the first pixel in raster order, and every sum has one order (no fastmath: the
compiler must not reorder sums or fuse products). So an object has the same bits in every window of
the mosaic that contains it.

All loops are in one file because the cache on disk, next to it, does not notice changes of a
function that is called from another file.
"""

from math import atan2, nan, pi, sqrt
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

UP, LEFT, RIGHT, DOWN = range(4)
FAR = 1 << 30  # larger than any coordinate
CENTROID_STEPS = 1024  # centroids are multiples of 1/1024 px: exact in float64 wherever they lie
# What `measure_shapes` measures, in the order of its result; then row and column of the centroid.
SHAPES = ("area", "equivalent_diameter_area", "eccentricity", "solidity", "orientation")

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


class Rules(NamedTuple):
    """How regions are split; lengths are in pixels of the image that is split."""

    radius: float  # of a typical object
    cap: float  # of the depth, in radii
    depth_weight: float
    steps: float  # of the landscape, per unit
    smoothing: NDArray[np.float32]  # weights of the Gaussian from its centre outwards
    apart: NDArray[np.int64]  # half widths of the disc in which a seed is the highest, by row
    quantile: float
    cut: float  # fraction of its own brightness at which an object ends
    largest_hole: float
    passes: int


def half_gaussian(sigma: float, reach: float) -> NDArray[np.float32]:
    """Return the weights of a Gaussian from its centre outwards, cut at `reach` deviations."""
    steps = np.arange(int(reach * sigma + 0.5) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    return np.asarray(weights / (2 * weights.sum() - weights[0]), np.float32)


@compiled
def add_weighted(before, after, weight, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Add two rows, weighted alike."""
    for x in range(out.size):
        out[x] += weight * (before[x] + after[x])


@compiled
def smooth_row(row, weights, padded, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Smooth a row; beyond its ends their pixels are repeated."""
    reach, width = weights.size - 1, row.size
    for x in range(reach):
        padded[x], padded[reach + width + x] = row[0], row[width - 1]
    for x in range(width):
        padded[reach + x] = row[x]
        out[x] = weights[0] * row[x]
    for k in range(1, weights.size):
        add_weighted(padded[reach - k :], padded[reach + k :], weights[k], out)


@compiled
def smooth(image, weights, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Smooth an image (y, x) along both axes; beyond its edge pixels are repeated."""
    height, width = image.shape
    reach, size = weights.size - 1, 2 * weights.size - 1
    ring = np.empty((size, width), np.float32)
    padded = np.empty(width + 2 * reach, np.float32)
    ready = -1
    for y in range(height):
        while ready < min(y + reach, height - 1):
            ready += 1
            smooth_row(image[ready], weights, padded, ring[ready % size])
        middle, total = ring[y % size], out[y]
        for x in range(width):
            total[x] = weights[0] * middle[x]
        for k in range(1, weights.size):
            above, below = max(y - k, 0), min(y + k, height - 1)
            add_weighted(ring[above % size], ring[below % size], weights[k], total)


@compiled
def bin_blocks(image, factor, first, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Average blocks of the mosaic's grid; blocks cut by the border repeat its pixels.

    `first` is the row and column of the region's first pixel within its block.
    """
    height, width = image.shape
    wide, area = np.empty(width, np.float32), np.float32(factor * factor)
    for row in range(out.shape[0]):
        for k in range(factor):
            source = image[min(max(row * factor + k - first[0], 0), height - 1)]
            for x in range(width):
                wide[x] = source[x] if k == 0 else wide[x] + source[x]
        for column in range(out.shape[1]):
            left = column * factor - first[1]
            total = np.float32(0)
            for x in range(left, left + factor):
                total += wide[min(max(x, 0), width - 1)]
            out[row, column] = total / area


@compiled
def squared_depth(mask, cap):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the squared distance of each pixel to the nearest one outside the mask.

    Distances are cut at `cap`; what lies beyond the window is not outside.
    """
    height, width = mask.shape
    column = np.empty((height, width), np.int32)
    for x in range(width):
        column[0, x] = cap if mask[0, x] else 0
    for y in range(1, height):
        for x in range(width):
            column[y, x] = min(column[y - 1, x] + 1, cap) if mask[y, x] else 0
    for y in range(height - 2, -1, -1):
        for x in range(width):
            column[y, x] = min(column[y, x], column[y + 1, x] + 1)
    depth = np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            nearest = column[y, x] * column[y, x]
            for k in range(1, cap):
                if k * k >= nearest:
                    break
                if x >= k:
                    nearest = min(nearest, k * k + column[y, x - k] * column[y, x - k])
                if x + k < width:
                    nearest = min(nearest, k * k + column[y, x + k] * column[y, x + k])
            depth[y, x] = nearest
    return depth


@compiled
def landscape_of(mask, levels, corner, light, rules):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the smoothed heights of a window, in whole steps: depth in the mask, and light.

    `levels` are those of the whole image, `corner` is where the window lies in it.
    """
    reach = rules.smoothing.size - 1
    rows, columns = mask.shape
    depth = squared_depth(mask, int(np.ceil(rules.cap * rules.radius)))
    ground = np.empty((rows + 2 * reach, columns + 2 * reach), np.float32)
    for y in range(ground.shape[0]):
        row = min(max(corner[0] + y - reach, 0), levels.shape[0] - 1)
        for x in range(ground.shape[1]):
            column = min(max(corner[1] + x - reach, 0), levels.shape[1] - 1)
            ground[y, x] = (1 - rules.depth_weight) * light[levels[row, column]]
    for y in range(rows):
        for x in range(columns):
            far = min(np.sqrt(depth[y, x]) / rules.radius, rules.cap)
            ground[y + reach, x + reach] += rules.depth_weight * far
    soft = np.empty_like(ground)
    smooth(ground, rules.smoothing, soft)
    height = np.empty((rows, columns), np.int32)
    for y in range(rows):
        for x in range(columns):
            height[y, x] = int(np.rint(soft[y + reach, x + reach] * rules.steps))
    return height


@compiled
def is_peak(height, mask, y, x, apart):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return whether no pixel of the mask within the disc around a pixel is higher."""
    reach, here = apart.size // 2, height[y, x]
    for distance in range(reach + 1):  # the nearest rows decide most often
        for side in range(2):
            row = y + distance if side else y - distance
            if row < 0 or row >= height.shape[0]:
                continue
            half = apart[reach + distance]
            for column in range(max(x - half, 0), min(x + half + 1, height.shape[1])):
                if height[row, column] > here and mask[row, column]:
                    return False
    return True


@compiled
def spread_label(labels, start, value, stack):  # type: ignore[no-untyped-def] # pragma: no cover
    """Give a label to all pixels marked -1 that are connected to one of them, also by corners."""
    rows, columns = labels.shape
    flat = labels.ravel()
    flat[start], stack[0], size = value, start, 1
    while size:
        size -= 1
        y, x = divmod(stack[size], columns)
        for row in range(max(y - 1, 0), min(y + 2, rows)):
            for column in range(max(x - 1, 0), min(x + 2, columns)):
                at = row * columns + column
                if flat[at] == -1:
                    flat[at], stack[size] = value, at
                    size += 1


@compiled
def seeds_of(height, mask, apart):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return labels (y, x) of the peaks, 1 to n in raster order; a plateau is one peak."""
    rows, columns = mask.shape
    labels = np.zeros((rows, columns), np.int32)
    for y in range(rows):
        for x in range(columns):
            if mask[y, x] and is_peak(height, mask, y, x, apart):
                labels[y, x] = -1
    stack = np.empty(rows * columns, np.int32)
    number, flat = 0, labels.ravel()
    for start in range(flat.size):
        if flat[start] == -1:
            number += 1
            spread_label(labels, start, number, stack)
    return labels


@compiled
def neighbour(at, side, rows, columns):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the index of the pixel above, left, right or below; -1 beyond the window."""
    if side == UP:
        return at - columns if at >= columns else -1
    if side == LEFT:
        return at - 1 if at % columns else -1
    if side == RIGHT:
        return at + 1 if (at + 1) % columns else -1
    return at + columns if at + columns < rows * columns else -1


@compiled
def flood(height, mask, labels):  # type: ignore[no-untyped-def] # pragma: no cover
    """Grow labels in place over the mask by a watershed, from high to low.

    A queue for each height, first in, first out; pixels higher than the water join its level.
    """
    rows, columns = mask.shape
    top = height.max()
    first = np.full(top - height.min() + 1, -1, np.int32)
    last = np.empty(first.size, np.int32)
    following = np.empty(rows * columns, np.int32)
    levels, inside, flat = height.ravel(), mask.ravel(), labels.ravel()
    for at in range(flat.size):
        if flat[at] > 0:
            join(first, last, following, top - levels[at], at)
    for level in range(first.size):
        while first[level] >= 0:
            at = first[level]
            first[level] = following[at]
            for side in range(4):
                to = neighbour(at, side, rows, columns)
                if to >= 0 and inside[to] and flat[to] == 0:
                    flat[to] = flat[at]
                    join(first, last, following, max(top - levels[to], level), to)


@compiled
def join(first, last, following, level, at):  # type: ignore[no-untyped-def] # pragma: no cover
    """Put a pixel at the end of the queue of a level."""
    following[at] = -1
    if first[level] < 0:
        first[level] = at
    else:
        following[last[level]] = at
    last[level] = at


@compiled
def nth_smallest(values, n):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the value at index n of the sorted values; they are reordered."""
    low, high = 0, values.size - 1
    while low < high:
        pivot, left, right = values[(low + high) // 2], low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if n <= right:
            high = right
        elif n >= left:
            low = left
        else:
            break
    return values[n]


@compiled
def brightness_of(labels, levels, corner, quantile):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return a high quantile of the levels of each label in a window, 0 for the background."""
    number = labels.max()
    start = np.zeros(number + 2, np.int64)
    for label in labels.ravel():
        start[label + 1] += label > 0
    for label in range(number + 1):
        start[label + 1] += start[label]
    values, filled = np.empty(start[-1], np.int32), start.copy()
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label > 0:
                values[filled[label]] = levels[corner[0] + y, corner[1] + x]
                filled[label] += 1
    bright = np.zeros(number + 1, np.int32)
    for label in range(1, number + 1):
        own = values[start[label] : start[label + 1]]
        if own.size:
            bright[label] = nth_smallest(own, own.size - 1 - int((1 - quantile) * (own.size - 1)))
    return bright


@compiled
def keep_largest_parts(labels, number):  # type: ignore[no-untyped-def] # pragma: no cover
    """Remove all but the largest connected part of each label, in place; the first of equal ones.

    Connected are four neighbours.
    """
    rows, columns = labels.shape
    parts, flat = np.zeros((rows, columns), np.int32), labels.ravel()
    stack = np.empty(rows * columns, np.int32)
    best, size = np.zeros(number + 1, np.int32), np.zeros(number + 1, np.int32)
    part, flat_parts = 0, parts.ravel()
    for start in range(flat.size):
        label = flat[start]
        if label > 0 and flat_parts[start] == 0:
            part += 1
            count = spread_part(flat, flat_parts, parts.shape, start, part, stack)
            if count > size[label]:
                best[label], size[label] = part, count
    for at in range(flat.size):
        if flat_parts[at] != best[flat[at]]:
            flat[at] = 0


@compiled
def spread_part(labels, parts, shape, start, part, stack):  # type: ignore[no-untyped-def] # pragma: no cover
    """Number all pixels of a label that are connected to one; return how many they are."""
    label, size, count = labels[start], 1, 0
    stack[0], parts[start] = start, part
    while size:
        size -= 1
        count += 1
        at = stack[size]
        for side in range(4):
            to = neighbour(at, side, shape[0], shape[1])
            if to >= 0 and labels[to] == label and parts[to] == 0:
                parts[to] = part
                stack[size] = to
                size += 1
    return count


@compiled
def trim(labels, levels, corner, rules):  # type: ignore[no-untyped-def] # pragma: no cover
    """Cut objects at a fraction of their own brightness, in place; return whether any changed."""
    bright = brightness_of(labels, levels, corner, rules.quantile)
    changed = False
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label > 0 and levels[corner[0] + y, corner[1] + x] < rules.cut * bright[label]:
                labels[y, x] = 0
                changed = True
    if changed:
        keep_largest_parts(labels, bright.size - 1)
    return changed


@compiled
def fill_holes(labels, foreign, most):  # type: ignore[no-untyped-def] # pragma: no cover
    """Fill holes of at most so many pixels that one label encloses, in place.

    `foreign` marks pixels of other regions: a hole with one of these is not filled.
    """
    rows, columns = labels.shape
    flat, outside = labels.ravel(), foreign.ravel()
    stack, seen = np.empty(flat.size, np.int32), np.zeros(flat.size, np.bool_)
    for start in range(flat.size):
        if flat[start] or seen[start]:
            continue
        seen[start], stack[0], size, done, rim = True, start, 1, 0, 0
        while done < size:
            at = stack[done]
            done += 1
            for side in range(4):
                to = neighbour(at, side, rows, columns)
                if to < 0 or outside[at]:
                    rim = -1  # open, or not its own
                elif flat[to]:
                    rim = flat[to] if rim == 0 or rim == flat[to] else -1
                elif not seen[to]:
                    seen[to], stack[size] = True, to
                    size += 1
        if rim > 0 and size <= most:
            for k in range(size):
                flat[stack[k]] = rim


@compiled
def split_regions(levels, regions, boxes, light, rules):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the objects (y, x) of all regions, and how many labels were used.

    `boxes` are (top, left, bottom, right) of the regions 1 to n, one pixel wider than these.
    """
    out, used = np.zeros(regions.shape, np.int32), 0
    for number in range(1, boxes.shape[0] + 1):
        box = boxes[number - 1]
        corner = (box[0], box[1])
        window = regions[box[0] : box[2], box[1] : box[3]]
        mask = window == number
        labels = np.zeros(mask.shape, np.int32)
        for _ in range(rules.passes):
            height = landscape_of(mask, levels, corner, light, rules)
            labels = seeds_of(height, mask, rules.apart)
            flood(height, mask, labels)
            if not trim(labels, levels, corner, rules):
                break
            mask = labels > 0
        fill_holes(labels, (window > 0) & (window != number), rules.largest_hole)
        most = 0
        for y in range(labels.shape[0]):
            for x in range(labels.shape[1]):
                if labels[y, x] > 0:
                    out[box[0] + y, box[1] + x] = labels[y, x] + used
                    most = max(most, labels[y, x])
        used += most
    return out, used


@compiled
def number_objects(labels, used, least, factor, first, shape):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the labels at full size, 1 to n by their first pixels, without those that are small.

    `least` is in pixels of `labels`; `first` is the row and column of the first full-size pixel
    within its block of `factor` pixels.
    """
    sizes = np.zeros(used + 1, np.int64)
    for label in labels.ravel():
        sizes[label] += 1
    new, number = np.zeros(used + 1, np.int32), 0
    out = np.empty(shape, np.int32)
    for y in range(shape[0]):
        source, target = labels[(y + first[0]) // factor], out[y]
        column, phase = 0, first[1]
        for x in range(shape[1]):
            label = source[column]
            if label and new[label] == 0 and sizes[label] >= least:
                number += 1
                new[label] = number
            target[x] = new[label] if label else 0
            phase += 1
            if phase == factor:
                column, phase = column + 1, 0
    return out


@compiled
def boxes_of(labels, number):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return top, left, bottom, right of the labels 1 to n, the ends exclusive."""
    boxes = np.zeros((number + 1, 4), np.int64)
    boxes[:, :2] = FAR
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label:
                box = boxes[label]
                box[0], box[1] = min(box[0], y), min(box[1], x)
                box[2], box[3] = max(box[2], y + 1), max(box[3], x + 1)
    return boxes[1:]


@compiled
def lower_envelope(values, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write the lower convex envelope at the odd indices, halved and rounded up.

    Values are integers; FAR where there is none.
    """
    corners, size = np.empty(values.size, np.int64), 0
    for at in range(values.size):
        if values[at] == FAR:
            continue
        while size > 1:
            before, last = corners[size - 2], corners[size - 1]
            rise = (values[last] - values[before]) * (at - before)
            if rise < (values[at] - values[before]) * (last - before):
                break
            size -= 1
        corners[size] = at
        size += 1
    for k in range(size - 1):
        start, end = corners[k], corners[k + 1]
        run, rise = end - start, values[end] - values[start]
        for at in range(start | 1, end + 1, 2):
            out[at // 2] = -((-(values[start] * run + rise * (at - start))) // (2 * run))


@compiled
def hull_area(left, right):  # type: ignore[no-untyped-def] # pragma: no cover
    """Count the pixels whose centre lies in the convex hull of the pixels of an object.

    `left` and `right` are its first and last pixel of each row; FAR and -FAR in a row without any.
    As in scikit-image a pixel counts as the rhombus between the middles of its sides.
    """
    rows = left.size
    low, high = np.full(2 * rows + 1, FAR), np.full(2 * rows + 1, FAR)
    for y in range(rows):
        if left[y] <= right[y]:
            for at, beyond in ((2 * y, 0), (2 * y + 1, 1), (2 * y + 2, 0)):
                low[at] = min(low[at], 2 * left[y] - beyond)
                high[at] = min(high[at], -2 * right[y] - beyond)
    first, last = np.ones(rows, np.int64), np.ones(rows, np.int64)
    lower_envelope(low, first)
    lower_envelope(high, last)
    area = 0
    for y in range(rows):
        area += max(0, 1 - last[y] - first[y])
    return area


@compiled
def measure_shape(inside, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write area, diameter, eccentricity, solidity, orientation and centroid of a mask.

    Formulas are those of `skimage.measure.regionprops`; the moments are exact integers.
    """
    rows, columns = inside.shape
    left, right = np.full(rows, FAR), np.full(rows, -FAR)
    area = down = across = square_down = square_across = mixed = 0
    for y in range(rows):
        for x in range(columns):
            if inside[y, x]:
                left[y], right[y] = min(left[y], x), x
                area += 1
                down += y
                across += x
                square_down += y * y
                square_across += x * x
                mixed += y * x
    tall = square_down * area - down * down  # central moments times the squared area
    wide = square_across * area - across * across
    tilt = mixed * area - down * across
    spread = sqrt(float(tall - wide) ** 2 + 4 * float(tilt) ** 2)
    great, small = (tall + wide + spread) / 2, max((tall + wide - spread) / 2, 0.0)
    out[0], out[1] = area, sqrt(4 * area / pi)
    out[2] = sqrt(1 - small / great) if great > 0 else 0.0
    out[3] = area / hull_area(left, right)
    out[4] = 0.5 * atan2(2.0 * tilt, float(tall - wide))
    if tall == wide:
        out[4] = pi / 4 if tilt > 0 else -pi / 4
    out[5] = np.rint(down / area * CENTROID_STEPS) / CENTROID_STEPS
    out[6] = np.rint(across / area * CENTROID_STEPS) / CENTROID_STEPS


@compiled
def median_of(values):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the median; the values are reordered."""
    upper = nth_smallest(values, values.size // 2)
    lower = upper if values.size % 2 else nth_smallest(values, values.size // 2 - 1)
    return (float(lower) + float(upper)) / 2


@compiled
def weighted_middle(values, weights):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the least value up to which half of the weight lies; both arrays are reordered."""
    need = weights.sum() / 2
    low, high = 0, values.size - 1
    while low < high:
        pivot, left, right = values[(low + high) // 2], low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                weights[left], weights[right] = weights[right], weights[left]
                left += 1
                right -= 1
        lower, equal = 0.0, 0.0
        for k in range(low, right + 1):
            lower += weights[k]
        for k in range(right + 1, left):
            equal += weights[k]
        if lower >= need:
            high = right
        elif lower + equal >= need:
            return pivot
        else:
            need -= lower + equal
            low = left
    return values[min(low, values.size - 1)]


@compiled
def steps_to(inside):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the distance of each pixel to the next one of the mask in its row."""
    rows, columns = inside.shape
    steps = np.full((rows, columns), FAR)
    for y in range(rows):
        for x in range(columns):
            if inside[y, x]:
                steps[y, x] = 0
            elif x:
                steps[y, x] = min(FAR, steps[y, x - 1] + 1)
        for x in range(columns - 2, -1, -1):
            steps[y, x] = min(steps[y, x], steps[y, x + 1] + 1)
    return steps


@compiled
def ground_around(labels, light, number, disc, default):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the median light of the background within a disc's reach of a label.

    `disc` holds half widths by row; the default is returned if there is none.
    """
    rows, columns = labels.shape
    reach = disc.size // 2
    steps = steps_to(labels == number)
    near = np.zeros(columns, np.bool_)
    values, size = np.empty(rows * columns, np.float32), 0
    for y in range(rows):
        near[:] = False
        for row in range(max(y - reach, 0), min(y + reach + 1, rows)):
            half, line = disc[row - y + reach], steps[row]
            for x in range(columns):
                near[x] |= line[x] <= half
        for x in range(columns):
            if near[x] and labels[y, x] == 0:
                values[size] = light[y, x]
                size += 1
    return median_of(values[:size]) if size else default


@compiled
def measure_light(labels, light, depth, number, background, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write mean and greatest light of a label, and the median of its heights, weighted by light.

    Heights that are not finite are ignored; nan if none is finite.
    """
    heights = np.empty(labels.size, np.float64)
    weights = np.empty(labels.size, np.float64)
    total, most, count, size = 0.0, light[0, 0], 0, 0
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] != number:
                continue
            most = light[y, x] if count == 0 else max(most, light[y, x])
            total += light[y, x]
            count += 1
            if np.isfinite(depth[y, x]):
                heights[size] = depth[y, x]
                weights[size] = max(float(light[y, x]) - background, 0.0)
                size += 1
    if size and weights[:size].max() == 0:
        weights[:size] = 1
    out[0], out[1] = total / count, most
    out[2] = weighted_middle(heights[:size], weights[:size]) if size else nan


@compiled
def measure_shapes(labels, boxes):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return SHAPES and the centroids of the labels 1 to n, one label a row."""
    shapes = np.empty((boxes.shape[0], 7))
    for k in range(boxes.shape[0]):
        top, left, bottom, right = boxes[k]
        measure_shape(labels[top:bottom, left:right] == k + 1, shapes[k])
        shapes[k, 5] += top
        shapes[k, 6] += left
    return shapes


@compiled
def measure_lights(labels, light, depth, boxes, disc, background):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return mean light, greatest light, height and light of the rim of the labels 1 to n."""
    lights = np.empty((boxes.shape[0], 4))
    reach = disc.size // 2
    for k in range(boxes.shape[0]):
        top, left, bottom, right = boxes[k]
        own = labels[top:bottom, left:right], light[top:bottom, left:right]
        measure_light(*own, depth[top:bottom, left:right], k + 1, background, lights[k])
        top, left = max(top - reach, 0), max(left - reach, 0)
        wide = labels[top : bottom + reach, left : right + reach]
        around = light[top : bottom + reach, left : right + reach]
        lights[k, 3] = ground_around(wide, around, k + 1, disc, background)
    return lights
