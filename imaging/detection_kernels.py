"""The loops of detection that numpy cannot run at memory speed: smooth, split, measure.

Invariant: what becomes of a connected region depends on its own pixels and the light around it
only, ties go to the first pixel in raster order, and every sum has one order (no fastmath: the
compiler must not reorder sums or fuse products). So an object has the same bits in every window of
the mosaic that contains it.

All loops are in one file because compiled code that is kept on disk does not notice changes of a
function that is called from another file.
"""

from math import atan2, nan, pi, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imaging.code_cache import compiler

UP, LEFT, RIGHT, DOWN = range(4)
FAR = 1 << 30  # larger than any coordinate
CENTROID_STEPS = 1024  # centroids are multiples of 1/1024 px: exact in float64 wherever they lie
# What `measure_shapes` measures, in the order of its result; then row and column of the centroid.
SHAPES = ("area", "equivalent_diameter_area", "eccentricity", "solidity", "orientation")

compiled = compiler(error_model="numpy")


class Rules(NamedTuple):
    """How regions are split; lengths are in pixels of the image that is split."""

    radius: float  # of a typical object
    cap: float  # of the depth, in radii
    depth_weight: float
    steps: float  # of the landscape, per unit
    smoothing: NDArray[np.float32]  # weights of the Gaussian from its centre outwards
    apart: NDArray[np.int64]  # half widths of the disc in which a seed is the highest, by row
    dip: float  # of the landscape, in steps: peaks between which it falls less are one
    quantile: float
    cut: float  # fraction of its own brightness at which an object ends
    core: float  # fraction of it above which the second pass measures depth
    neck: float  # depth of the saddle over that of the lower peak from which neighbours are one
    slack: float  # added to the depth of the saddle, because distances of pixels are coarse
    bridge: float  # light of the saddle over that of the darker one, likewise
    solidity: float  # of both together, likewise
    rod_solidity: float  # of several in a row
    rod_width: float  # of such a row, in widths of its widest member
    rod_members: int  # of such a row
    curved: float  # mean over greatest depth, from which such a row may be curved
    largest_hole: float  # area
    largest_ring: float  # area of a hole whose wall has one width
    hollow: float  # least area of the holes of rings over that of their walls
    wall: float  # least width of a ring's wall over its greatest
    opening: float  # radius of a ring's hole over half the width of its wall


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
def flood(height, mask, labels, dip):  # type: ignore[no-untyped-def] # pragma: no cover
    """Grow labels in place over the mask by a watershed, from high to low.

    A queue for each height, first in, first out; pixels higher than the water join its level. Where
    the water of two peaks meets less than `dip` below the lower one, they become one.
    """
    rows, columns = mask.shape
    top = height.max()
    first = np.full(top - height.min() + 1, -1, np.int32)
    last = np.empty(first.size, np.int32)
    following = np.empty(rows * columns, np.int32)
    dry = np.ones(rows * columns, np.bool_)
    levels, inside, flat = height.ravel(), mask.ravel(), labels.ravel()
    root = np.arange(labels.max() + 1)
    peak = np.full(root.size, first.size)
    for at in range(flat.size):
        if flat[at] > 0:
            join(first, last, following, top - levels[at], at)
            peak[flat[at]] = min(peak[flat[at]], top - levels[at])
    for level in range(first.size):
        while first[level] >= 0:
            at = first[level]
            first[level], dry[at] = following[at], False
            for side in range(4):
                to = neighbour(at, side, rows, columns)
                if to < 0 or not inside[to]:
                    continue
                if flat[to] == 0:
                    flat[to] = flat[at]
                    join(first, last, following, max(top - levels[to], level), to)
                elif flat[to] != flat[at] and not dry[to]:
                    unite(root, peak, flat[at], flat[to], level - dip)
    for at in range(flat.size):
        flat[at] = root_of(root, flat[at])


@compiled
def root_of(root, label):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the label that stands for all that are one with this one."""
    while root[label] != label:
        root[label] = root[root[label]]
        label = root[label]
    return label


@compiled
def unite(root, peak, one, two, limit):  # type: ignore[no-untyped-def] # pragma: no cover
    """Make two labels one if a peak is nearer to the water than the dip; the higher one stays."""
    one, two = root_of(root, one), root_of(root, two)
    if (peak[one], one) > (peak[two], two):
        one, two = two, one
    if one != two and peak[two] > limit:
        root[two] = one


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
def fill_holes(labels, others, most):  # type: ignore[no-untyped-def] # pragma: no cover
    """Fill holes of at most so many pixels that one label encloses, in place."""
    rows, columns = labels.shape
    pixels, first = holes_of(labels > 0, others)
    flat = labels.ravel()
    for k in range(first.size - 1):
        hole, rim = pixels[first[k] : first[k + 1]], 0
        for at in hole:
            for side in range(4):
                label = flat[neighbour(at, side, rows, columns)]
                if label and rim != label:
                    rim = label if rim == 0 else -1
        if rim > 0 and hole.size <= most:
            for at in hole:
                flat[at] = rim


@compiled
def large_regions(regions, boxes, fine, coarse):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return which regions are deeper than the geometric mean of the radii of two rules."""
    large = np.zeros(boxes.shape[0], np.bool_)
    if coarse.radius > fine.radius:
        for k in range(large.size):
            top, left, bottom, right = boxes[k]
            mask = regions[top:bottom, left:right] == k + 1
            deepest = squared_depth(mask, int(coarse.radius) + 1).max()
            large[k] = deepest > fine.radius * coarse.radius
    return large


@compiled
def split_regions(levels, regions, boxes, core, light, fine, coarse, large):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the objects (y, x) of all regions, and the last label of each; the first is 0.

    `boxes` are (top, left, bottom, right) of the regions 1 to n, one pixel wider than these. Depth
    is that below the rim of `core`. Regions that are `large` are split by the coarse rules.
    """
    out, last = np.zeros(regions.shape, np.int32), np.zeros(boxes.shape[0] + 1, np.int32)
    for number in range(1, boxes.shape[0] + 1):
        top, left, bottom, right = boxes[number - 1]
        mask = regions[top:bottom, left:right] == number
        deep, rules = mask & core[top:bottom, left:right], coarse if large[number - 1] else fine
        height = landscape_of(deep, levels, (top, left), light, rules)
        labels = seeds_of(height, mask, rules.apart)
        flood(height, mask, labels, rules.dip)
        trim(labels, levels, (top, left), rules)
        most = 0
        for y in range(labels.shape[0]):
            for x in range(labels.shape[1]):
                if labels[y, x] > 0:
                    out[top + y, left + x] = labels[y, x] + last[number - 1]
                    most = max(most, labels[y, x])
        last[number] = last[number - 1] + most
    return out, last


@compiled
def core_of(labels, levels, rules):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return where (y, x) an object has more than a fraction of its own brightness."""
    bright = brightness_of(labels, levels, (0, 0), rules.quantile)
    core = np.empty(labels.shape, np.bool_)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            core[y, x] = labels[y, x] and levels[y, x] >= rules.core * bright[labels[y, x]]
    return core


@compiled
def holes_of(mask, others):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the pixels of the holes of a mask, one hole after the other, and where each begins.

    A hole with a pixel of `others`, or one that reaches the edge of the window, is none.
    """
    rows, columns = mask.shape
    inside, outside = mask.ravel(), others.ravel()
    pixels, seen = np.empty(inside.size, np.int32), np.zeros(inside.size, np.bool_)
    first, number, size = np.zeros(inside.size // 2 + 2, np.int32), 0, 0
    for start in range(inside.size):
        if inside[start] or seen[start]:
            continue
        begun, done, closed = size, size, True
        seen[start], pixels[size] = True, start
        size += 1
        while done < size:
            at = pixels[done]
            done += 1
            closed &= not outside[at]
            for side in range(4):
                to = neighbour(at, side, rows, columns)
                if to < 0:
                    closed = False
                elif not inside[to] and not seen[to]:
                    seen[to], pixels[size] = True, to
                    size += 1
        if closed:
            number += 1
            first[number] = size
        else:
            size = begun
    return pixels, first[: number + 1]


@compiled
def fill_rings(levels, regions, boxes, areas, least, rules):  # type: ignore[no-untyped-def] # pragma: no cover
    """Fill the holes of rings in place: the region grows, the hole gets the light of the wall.

    Regions smaller than `least` are dirt: they may lie in a hole, and vanish.
    """
    for number in range(1, boxes.shape[0] + 1):
        top, left, bottom, right = boxes[number - 1]
        window = regions[top:bottom, left:right]
        mask, others = window == number, np.zeros(window.shape, np.bool_)
        for y in range(window.shape[0]):
            for x in range(window.shape[1]):
                others[y, x] = not mask[y, x] and areas[window[y, x]] >= least and window[y, x]
        pixels, first = holes_of(mask, others)
        if first.size == 1 or first[-1] < rules.hollow * np.count_nonzero(mask):
            continue
        filled = mask.copy()
        for at in pixels[: first[-1]]:
            filled.ravel()[at] = True
        depth = squared_depth(filled, int(np.ceil(4 * rules.radius)))
        bright = brightness_of(mask.astype(np.int32), levels, (top, left), rules.quantile)[1]
        for k in range(first.size - 1):
            hole = pixels[first[k] : first[k + 1]]
            if is_ring(hole, mask, depth, rules):
                for at in hole:
                    window[at // mask.shape[1], at % mask.shape[1]] = number
                fill_basin(levels[top:bottom, left:right], hole, bright)


@compiled
def fill_basin(levels, hole, light):  # type: ignore[no-untyped-def] # pragma: no cover
    """Raise a hole to a level in place, and what rises around it up to the crest of its wall.

    The inner slope of the wall would be a moat around a plateau, which would be an object apart.
    """
    rows, columns = levels.shape
    found, size = np.empty(levels.size, np.int32), hole.size
    reached = np.zeros(levels.size, np.bool_)
    for k in range(hole.size):
        found[k], reached[hole[k]] = hole[k], True
    done = 0
    while done < size:
        at = found[done]
        done += 1
        for side in range(4):
            to = neighbour(at, side, rows, columns)
            if to < 0 or reached[to]:
                continue
            height = levels[to // columns, to % columns]
            if levels[at // columns, at % columns] <= height < light:
                found[size], reached[to] = to, True
                size += 1
    for at in found[:size]:
        levels[at // columns, at % columns] = light


@compiled
def is_ring(hole, mask, depth, rules):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return whether a hole is large for its wall, and the wall of one width all around.

    `depth` is the squared distance to what lies outside of the mask with its holes filled.
    """
    if hole.size > rules.largest_ring:
        return False
    rows, columns = mask.shape
    widths, size = np.empty(4 * hole.size, np.int32), 0
    inside, deep = mask.ravel(), depth.ravel()
    for at in hole:
        for side in range(4):
            to = neighbour(at, side, rows, columns)
            if inside[to]:
                widths[size] = deep[to]
                size += 1
    thin = sqrt(nth_smallest(widths[:size], size // 10))
    thick = sqrt(nth_smallest(widths[:size], size - 1 - size // 10))
    return thin >= rules.wall * thick and sqrt(hole.size / pi) >= rules.opening * thick / 2


@compiled
def edges_of(labels, window, depth, number):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return neighbouring labels, depth and light of the saddle between: (edge, 4).

    The saddle is the highest pair of pixels on both sides of the border. Edges are in the raster
    order of the pair's first contact.
    """
    rows, columns = labels.shape
    first = np.full(number + 1, -1, np.int32)
    edges, following, size = np.empty((64, 4), np.int32), np.empty(64, np.int32), 0
    for y in range(rows):
        for x in range(columns):
            for down in range(2):
                row, column = y + down, x + 1 - down
                if row == rows or column == columns:
                    continue
                one, two = labels[y, x], labels[row, column]
                if one == two or one == 0 or two == 0:
                    continue
                low, high = min(one, two), max(one, two)
                edge = first[low]
                while edge >= 0 and edges[edge, 1] != high:
                    edge = following[edge]
                if edge < 0:
                    if size == following.size:
                        edges = np.concatenate((edges, np.empty_like(edges)))
                        following = np.concatenate((following, np.empty_like(following)))
                    edge, size = size, size + 1
                    edges[edge, 0], edges[edge, 1], edges[edge, 2], edges[edge, 3] = low, high, 0, 0
                    following[edge], first[low] = first[low], edge
                light = min(window[y, x], window[row, column])
                edges[edge, 2] = max(edges[edge, 2], min(depth[y, x], depth[row, column]))
                edges[edge, 3] = max(edges[edge, 3], light)
    return edges[:size]


@compiled
def solidity_of(labels, group, number, left, right):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return area over hull area of all labels of a group; `left` and `right` are scratch rows."""
    area, left[:], right[:] = 0, FAR, -FAR
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] and group[labels[y, x]] == number:
                area += 1
                left[y], right[y] = min(left[y], x), x
    return area / hull_area(left, right)


@compiled
def width_of(labels, group, number):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the minor axis of the ellipse with the second moments of a group of labels."""
    area = down = across = square_down = square_across = mixed = 0
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] and group[labels[y, x]] == number:
                area += 1
                down += y
                across += x
                square_down += y * y
                square_across += x * x
                mixed += y * x
    return axes_of(area, down, across, square_down, square_across, mixed)[1]


@compiled
def axes_of(area, down, across, square_down, square_across, mixed):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return major and minor axis, and direction, of the ellipse with these moments.

    The moments are sums of 1, y, x, y * y, x * x, y * x over pixels: integers. A pixel alone has
    axes of length 0. Formulas are those of `skimage.measure.regionprops`.
    """
    tall = square_down * area - down * down  # central moments times the squared area
    wide = square_across * area - across * across
    tilt = mixed * area - down * across
    spread = sqrt(float(tall - wide) ** 2 + 4 * float(tilt) ** 2)
    major = 4 * sqrt((tall + wide + spread) / 2) / area
    minor = 4 * sqrt(max((tall + wide - spread) / 2, 0.0)) / area
    turn = 0.5 * atan2(2.0 * tilt, float(tall - wide))
    if tall == wide:
        turn = pi / 4 if tilt > 0 else -pi / 4
    return major, minor, turn


@compiled
def candidates(edges, peak, bright, rules):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return which pairs have a saddle nearly as deep and as bright as their lesser peak."""
    found = np.empty(edges.shape[0], np.bool_)
    for k in range(found.size):
        one, two, depth, light = edges[k]
        deep = sqrt(depth) + rules.slack >= rules.neck * sqrt(min(peak[one], peak[two]))
        found[k] = deep and light >= rules.bridge * min(bright[one], bright[two])
    return found


@compiled
def merge_whole(labels, depth, edges, likely, peak, group, rules):  # type: ignore[no-untyped-def] # pragma: no cover
    """Unite all labels that likely pairs connect if they form a rod: convex, and nowhere wider
    than the widest of them; or a curved one, which is as deep all along."""
    left, right = np.empty(labels.shape[0], np.int64), np.empty(labels.shape[0], np.int64)
    linked = np.arange(group.size)
    for k in range(edges.shape[0]):
        if likely[k]:
            one, two = root_of(linked, edges[k, 0]), root_of(linked, edges[k, 1])
            linked[max(one, two)] = min(one, two)
    members, widest = np.zeros(group.size, np.int32), np.zeros(group.size)
    for label in range(1, group.size):
        linked[label] = root_of(linked, label)
        members[linked[label]] += 1
        widest[linked[label]] = max(widest[linked[label]], 2 * sqrt(peak[label]))
    even = evenness_of(labels, depth, linked)
    for label in range(1, group.size):
        keep = members[label] >= rules.rod_members
        if keep and even[label] < rules.curved:
            keep = width_of(labels, linked, label) <= rules.rod_width * widest[label]
            keep &= solidity_of(labels, linked, label, left, right) >= rules.rod_solidity
        if not keep:
            members[label] = 0
    for label in range(1, group.size):
        if members[linked[label]] > 1:
            group[label] = linked[label]


@compiled
def evenness_of(labels, depth, group):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the mean depth of each group over its greatest; `depth` is squared.

    From its outline the centre of a pixel is half a pixel nearer than from the next centre outside.
    """
    size, most = np.zeros(group.size, np.int64), np.zeros(group.size, np.int32)
    total = np.zeros(group.size)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            one = group[labels[y, x]]
            size[one] += 1
            total[one] += sqrt(depth[y, x])
            most[one] = max(most[one], depth[y, x])
    return (total / np.maximum(size, 1) - 0.5) / (np.sqrt(np.maximum(most, 1)) - 0.5)


@compiled
def merge_window(labels, levels, corner, number, rules):  # type: ignore[no-untyped-def] # pragma: no cover
    """Merge neighbouring labels 1 to n of a window in place where they look like one object.

    All that are connected if they are convex together, then pairs, the most convex ones first; of
    equal ones the first in raster order.
    """
    depth = squared_depth(labels > 0, int(np.ceil(rules.cap * rules.radius)))
    bright = brightness_of(labels, levels, corner, rules.quantile)
    window = levels[corner[0] : corner[0] + labels.shape[0], corner[1] :]
    edges, group = edges_of(labels, window, depth, number), np.arange(number + 1)
    peak = np.zeros(number + 1, np.int32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            peak[labels[y, x]] = max(peak[labels[y, x]], depth[y, x])
    likely = candidates(edges, peak, bright, rules)
    merge_whole(labels, depth, edges, likely, peak, group, rules)
    regroup(labels, edges, group, peak, bright)
    solid = np.full(edges.shape[0], -1.0)  # -1: not known
    while True:
        judge_pairs(labels, edges, number, candidates(edges, peak, bright, rules), solid)
        best = np.argmax(solid) if solid.size else 0
        if solid.size == 0 or solid[best] < rules.solidity:
            return
        one, two = edges[best, 0], edges[best, 1]
        group[two] = one
        regroup(labels, edges, group, peak, bright)
        for k in range(edges.shape[0]):
            if edges[k, 0] == one or edges[k, 1] == one:
                solid[k] = -1


@compiled
def judge_pairs(labels, edges, number, likely, solid):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write the solidity of the pairs for which it is not known, 0 for unlikely ones."""
    left, right = np.empty(labels.shape[0], np.int64), np.empty(labels.shape[0], np.int64)
    for k in range(solid.size):
        one, two = edges[k, 0], edges[k, 1]
        if one == two or not likely[k]:
            solid[k] = 0
        elif solid[k] < 0:
            pair = np.zeros(number + 1, np.int64)
            pair[one] = pair[two] = one
            solid[k] = solidity_of(labels, pair, one, left, right)


@compiled
def regroup(labels, edges, group, peak, bright):  # type: ignore[no-untyped-def] # pragma: no cover
    """Give labels the number of their group, and groups the greatest peak and brightness."""
    for label in range(1, group.size):
        one = group[label]
        peak[one], bright[one] = max(peak[one], peak[label]), max(bright[one], bright[label])
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            labels[y, x] = group[labels[y, x]]
    for k in range(edges.shape[0]):
        edges[k, 0], edges[k, 1] = group[edges[k, 0]], group[edges[k, 1]]


@compiled
def merge_regions(labels, levels, regions, boxes, last, rules):  # type: ignore[no-untyped-def] # pragma: no cover
    """Merge labels of each region, and fill the holes that one label encloses, in place.

    `last` is the last label of each region; the first is 0.
    """
    for region in range(1, boxes.shape[0] + 1):
        top, left, bottom, right = boxes[region - 1]
        if last[region] == last[region - 1]:
            continue
        whole = labels[top:bottom, left:right]
        own = np.zeros(whole.shape, np.int32)
        others = np.zeros(whole.shape, np.bool_)
        for y in range(own.shape[0]):
            for x in range(own.shape[1]):
                if last[region - 1] < whole[y, x] <= last[region]:
                    own[y, x] = whole[y, x] - last[region - 1]
                else:
                    others[y, x] = whole[y, x] > 0
        number = last[region] - last[region - 1]
        if number > 1:
            merge_window(own, levels, (top, left), number, rules)
        fill_holes(own, others, rules.largest_hole)
        for y in range(own.shape[0]):
            for x in range(own.shape[1]):
                if own[y, x]:
                    whole[y, x] = own[y, x] + last[region - 1]


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
    major, minor, turn = axes_of(area, down, across, square_down, square_across, mixed)
    out[0], out[1] = area, sqrt(4 * area / pi)
    out[2] = sqrt(1 - (minor / major) ** 2) if major > 0 else 0.0
    out[3], out[4] = area / hull_area(left, right), turn
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
def measure_light(labels, light, depth, number, ground, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write mean and greatest light of a label, and the median of its heights, weighted by light.

    Heights that are not finite are ignored; nan if none is finite. `ground` is the background, and
    the sign of the light of objects.
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
                weights[size] = max(ground[1] * (float(light[y, x]) - ground[0]), 0.0)
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
def measure_lights(labels, light, depth, boxes, disc, background, sign):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return mean light, greatest light, height and light of the rim of the labels 1 to n."""
    lights = np.empty((boxes.shape[0], 4))
    reach = disc.size // 2
    for k in range(boxes.shape[0]):
        top, left, bottom, right = boxes[k]
        own = labels[top:bottom, left:right], light[top:bottom, left:right]
        ground = (background, sign)
        measure_light(*own, depth[top:bottom, left:right], k + 1, ground, lights[k])
        top, left = max(top - reach, 0), max(left - reach, 0)
        wide = labels[top : bottom + reach, left : right + reach]
        around = light[top : bottom + reach, left : right + reach]
        lights[k, 3] = ground_around(wide, around, k + 1, disc, background)
    return lights


@compiled
def sizes_of(labels, boxes):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return diameter by area, width, and length of the labels 1 to n; widths are inscribed."""
    sizes = np.zeros((boxes.shape[0], 3))
    for k in range(boxes.shape[0]):
        top, left, bottom, right = boxes[k]
        if top >= bottom:
            continue
        inside = np.zeros((bottom - top + 2, right - left + 2), np.bool_)
        area = 0
        for y in range(top, bottom):
            for x in range(left, right):
                inside[y - top + 1, x - left + 1] = labels[y, x] == k + 1
                area += labels[y, x] == k + 1
        depth = squared_depth(inside, min(inside.shape))
        sizes[k, 0], sizes[k, 1] = sqrt(4 * area / pi), 2 * sqrt(depth.max()) - 1
        sizes[k, 2] = sqrt((bottom - top) ** 2 + (right - left) ** 2)
    return sizes


@compiled
def seeds_at(core, least, seeds, stack):  # type: ignore[no-untyped-def] # pragma: no cover
    """Number the connected parts that are at least so deep, in place; return how many they are."""
    depth = squared_depth(core, int(least) + 2)
    flat, deep, number = seeds.ravel(), depth.ravel(), 0
    for at in range(flat.size):
        flat[at] = -1 if deep[at] >= least * least else 0
    for at in range(flat.size):
        if flat[at] == -1:
            number += 1
            spread_label(seeds, at, number, stack)
    return number


@compiled
def grow_evenly(seeds, mask):  # type: ignore[no-untyped-def] # pragma: no cover
    """Grow labels over a mask, step by step, in place; return the least and greatest area."""
    rows, columns = mask.shape
    queue, size, flat, inside = np.empty(mask.size, np.int32), 0, seeds.ravel(), mask.ravel()
    areas = np.zeros(seeds.max() + 1, np.int64)
    for at in range(flat.size):
        if flat[at]:
            queue[size] = at
            size += 1
    done = 0
    while done < size:
        at = queue[done]
        done += 1
        areas[flat[at]] += 1
        for side in range(4):
            to = neighbour(at, side, rows, columns)
            if to >= 0 and inside[to] and flat[to] == 0:
                flat[to] = flat[at]
                queue[size] = to
                size += 1
    return areas[1:].min(), areas[1:].max()


@compiled
def split_disc(mask, levels, bright, area, radius):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the discs in a mask, 1 to n, at the first cut that gives equal parts of one area.

    If there is none, then at the first that gives parts of about one area; all are 0 if there is no
    such cut, either. `area` and `radius` are those of a typical disc.
    """
    seeds, stack = np.zeros(mask.shape, np.int32), np.empty(mask.size, np.int32)
    whole = mask.sum()
    for most, spread in ((1.3, 0.25), (1.6, 0.4)):  # else a disc beside a pair passes for two discs
        for cut in (0.5, 0.6, 0.7, 0.8, 0.9):
            core = mask & (levels >= cut * bright)
            for share in (0.3, 0.4, 0.5, 0.6, 0.7):
                number = seeds_at(core, share * radius, seeds, stack)
                if number > 1 and 0.7 * area <= whole / number <= most * area:
                    low, high = grow_evenly(seeds, mask)
                    low, high = low * number / whole, high * number / whole
                    if low >= 1 - spread and high <= 1 + spread:
                        return seeds
    seeds[:] = 0
    return seeds


@compiled
def split_discs(labels, levels, used, factor, rules):  # type: ignore[no-untyped-def] # pragma: no cover
    """Split objects much larger than a disc into discs, in place; return the last label."""
    boxes, last, area = boxes_of(labels, used), used, pi * rules.radius**2
    bright = brightness_of(labels, levels, (0, 0), rules.quantile)
    for number in range(1, used + 1):
        top, left, bottom, right = boxes[number - 1]
        if top >= bottom:
            continue
        mask = np.zeros((bottom - top + 2, right - left + 2), np.bool_)
        own = np.zeros(mask.shape, np.int32)
        for y in range(top, bottom):
            for x in range(left, right):
                mask[y - top + 1, x - left + 1] = labels[y, x] == number
                own[y - top + 1, x - left + 1] = levels[y, x]
        if mask.sum() < factor * area:
            continue
        parts = split_disc(mask, own, bright[number], area, rules.radius)
        for y in range(top, bottom):
            for x in range(left, right):
                if parts[y - top + 1, x - left + 1] > 1:
                    labels[y, x] = last + parts[y - top + 1, x - left + 1] - 1
        last += max(parts.max() - 1, 0)
    return last
