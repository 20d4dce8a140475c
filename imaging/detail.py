"""The finest two levels of fused pyramids, in loops over rows that stay in a processor's cache.

Three quarters of a pyramid's work is its finest band. Computed in one pass, with the window of the
energy in a few rows, nothing but pixels and results is read from memory.
"""

import numpy as np

from imaging.kernels import compiled, copy_row, widen_range

WINDOW_REACH_PX = 2  # of the energy
MARGIN_PX = 4  # of a run of tiles: the window, and to begin at a multiple of four
SIX, FOUR, WHOLE = np.float32(6), np.float32(4), np.float32(1 / 64)
AREA = np.float32(1 / 256)


@compiled
def reflected(at, size):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return which of `size` elements stands for one beyond the ends: they are mirrors."""
    while size > 1 and not 0 <= at < size:
        at = -at if at < 0 else 2 * size - 2 - at
    return at if size > 1 else 0


@compiled
def load_row(row, left, wide):  # type: ignore[no-untyped-def] # pragma: no cover
    """Copy a part of a row as float32, from column `left` on; mirrored beyond the ends."""
    start, stop = max(-left, 0), min(wide.size, row.size - left)
    copy_row(row[left + start : left + stop], wide[start:stop])
    for x in range(start):
        wide[x] = wide[reflected(left + x, row.size) - left]
    for x in range(stop, wide.size):
        wide[x] = wide[reflected(left + x, row.size) - left]


@compiled
def add_rows(one, two, three, four, five, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Smooth five rows down the columns: 1 4 6 4 1."""
    for x in range(out.size):
        out[x] = one[x] + five[x] + FOUR * (two[x] + four[x]) + SIX * three[x]


@compiled
def reduce_columns(sums, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Smooth along a row and keep every second element, the first in the middle of five."""
    for x in range(out.size):
        total = sums[2 * x] + sums[2 * x + 4] + SIX * sums[2 * x + 2]
        out[x] = AREA * (total + FOUR * (sums[2 * x + 1] + sums[2 * x + 3]))


@compiled
def reduce_plane(plane, corner, inner, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write a part of the next level of a plane, as OpenCV's pyrDown has it.

    out[0, 0] is the element `corner` of that level; rows and columns of `inner` (first and last
    ones) are written. Every pixel is read once, in one stream.
    """
    first, last, start, stop = inner
    left, size = 2 * (corner[1] + start) - 2, 2 * (stop - start) + 3
    rows, sums = np.empty((5, size), np.float32), np.empty(size, np.float32)
    height, loaded = plane.shape[0], max(2 * (corner[0] + first) - 2, 0)
    for y in range(first, last):
        row = 2 * (corner[0] + y)
        while loaded < min(row + 3, height):
            load_row(plane[loaded], left, rows[loaded % 5])
            loaded += 1
        add_rows(
            rows[reflected(row - 2, height) % 5], rows[reflected(row - 1, height) % 5],
            rows[row % 5], rows[reflected(row + 1, height) % 5],
            rows[reflected(row + 2, height) % 5], sums,
        )  # fmt: skip
        reduce_columns(sums, out[y, start:stop])


@compiled
def interpolate_rows(above, here, below, odd, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Interpolate a row of the finer level down a column: 1 6 1 on even rows, 4 4 on odd ones."""
    if odd:
        for x in range(out.size):
            out[x] = FOUR * (here[x] + below[x])
    else:
        for x in range(out.size):
            out[x] = above[x] + SIX * here[x] + below[x]


@compiled
def subtract_row(pixels, coarse, band, square):  # type: ignore[no-untyped-def] # pragma: no cover
    """Subtract from a row what the coarser level gives along it; its squares, too."""
    half = pixels.size // 2
    for x in range(half):
        even = coarse[x] + SIX * coarse[x + 1] + coarse[x + 2]
        odd = FOUR * (coarse[x + 1] + coarse[x + 2])
        band[2 * x] = np.float32(pixels[2 * x]) - WHOLE * even
        band[2 * x + 1] = np.float32(pixels[2 * x + 1]) - WHOLE * odd
    if pixels.size % 2:
        even = coarse[half] + SIX * coarse[half + 1] + coarse[half + 2]
        band[2 * half] = np.float32(pixels[2 * half]) - WHOLE * even
    for x in range(pixels.size):
        square[x] = band[x] * band[x]


@compiled
def sum_window(one, two, three, four, five, total, energy):  # type: ignore[no-untyped-def] # pragma: no cover
    """Sum five rows, then five elements of the sum."""
    for x in range(total.size):
        total[x] = (one[x] + two[x]) + (three[x] + four[x]) + five[x]
    for x in range(energy.size):
        energy[x] = (total[x] + total[x + 4]) + (total[x + 1] + total[x + 3]) + total[x + 2]


@compiled
def keep_row(energy, band, number, best, kept, winner):  # type: ignore[no-untyped-def] # pragma: no cover
    """Keep the coefficients of a row whose energy is above the best so far, and their plane.

    Two loops, since one that writes to three arrays is not vectorised; nor is one that loads values
    in a condition.
    """
    for x in range(best.size):
        before = winner[x]
        winner[x] = number if energy[x] > best[x] else before
    for x in range(best.size):
        new, old, coefficient, before = energy[x], best[x], band[x], kept[x]
        kept[x] = coefficient if new > old else before
        best[x] = new if new > old else old


@compiled
def add_row(row, total):  # type: ignore[no-untyped-def] # pragma: no cover
    """Add a row to another."""
    for x in range(total.size):
        total[x] += row[x]


@compiled
def follow_row(winner, band, number, kept):  # type: ignore[no-untyped-def] # pragma: no cover
    """Keep the coefficients of a row where their plane won."""
    for x in range(kept.size):
        coefficient, before = band[x], kept[x]
        kept[x] = coefficient if winner[x] == number else before


@compiled
def coarse_part(plane, top, left, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write a part of the next level of a plane, from row `top` and column `left` on, or from -1.

    Beyond the plane's ends it is as OpenCV's pyrUp has it: mirrored before, repeated after.
    """
    rows, columns = (plane.shape[0] + 1) // 2, (plane.shape[1] + 1) // 2
    first, last = max(-top, 0), min(rows - top, out.shape[0])
    start, stop = max(-left, 0), min(columns - left, out.shape[1])
    reduce_plane(plane, (top, left), (first, last, start, stop), out)
    for y in range(first, last):
        if start > 0:
            out[y, 0] = out[y, min(2, stop - 1)]
        if stop < out.shape[1]:
            out[y, stop] = out[y, stop - 1]
    if first > 0:
        copy_row(out[min(2, last - 1)], out[0])
    if last < out.shape[0]:
        copy_row(out[last - 1], out[last])


@compiled
def keep_band(pixels, coarse, inner, corner, number, follow, results, total):  # type: ignore[no-untyped-def] # pragma: no cover
    """Keep the finest coefficients of a plane where they are stronger than those of other planes.

    `pixels` is a part of the plane, `inner` the first and last row and column in it that are asked
    for, with a margin of two rows and four columns where there are any, and `coarse` the next level
    with one element around. Results are the best energies, the coefficients, and the number of the
    plane that won, which is given if `follow`; those of `inner` begin at `corner`. Energies are
    sums over 5x5 coefficients, 0 beyond the plane; they are added to `total` if it is not empty.
    """
    best, kept, winner = results
    top, bottom, start, stop = inner
    columns, skip = stop - start, MARGIN_PX - start
    band = np.zeros((5, columns + 2 * MARGIN_PX), np.float32)
    square = np.zeros((5, columns + 2 * MARGIN_PX), np.float32)
    wide = np.empty(coarse.shape[1], np.float32)
    window, energy = np.empty(columns + 4, np.float32), np.empty(columns, np.float32)
    begin, end = corner[1], corner[1] + columns
    for row in range(top - WINDOW_REACH_PX, bottom + WINDOW_REACH_PX):
        at, small, size = row % 5, row // 2, pixels.shape[1]
        if 0 <= row < pixels.shape[0]:
            above, here, below = coarse[small], coarse[small + 1], coarse[small + 2]
            interpolate_rows(above, here, below, row % 2 == 1, wide)
            own, its_square = band[at, skip : skip + size], square[at, skip : skip + size]
            subtract_row(pixels[row], wide, own, its_square)
        else:
            for x in range(square.shape[1]):
                square[at, x] = 0
        y, out = row - WINDOW_REACH_PX, row - WINDOW_REACH_PX - top + corner[0]
        if y < top:
            continue
        middle, kept_row = band[y % 5, MARGIN_PX : MARGIN_PX + columns], kept[out, begin:end]
        if follow:
            follow_row(winner[out, begin:end], middle, number, kept_row)
            continue
        stretch = slice(WINDOW_REACH_PX, WINDOW_REACH_PX + window.size)
        sum_window(
            square[0, stretch], square[1, stretch], square[2, stretch], square[3, stretch],
            square[4, stretch], window, energy,
        )  # fmt: skip
        keep_row(energy, middle, number, best[out, begin:end], kept_row, winner[out, begin:end])
        if total.size:
            add_row(energy, total[out, begin:end])


@compiled
def fuse_detail(frames, like, runs, corner, follow, results, low, high):  # type: ignore[no-untyped-def] # pragma: no cover
    """Keep the finest coefficients in runs of tiles: of a plane, first and last row and column.

    Plane k is frames[like[k]]. Results, least and most pixels, which are widened by those read, and
    runs begin at `corner` of the planes.
    """
    nothing = np.empty((0, 0), np.float32)
    for k in range(runs.shape[0]):
        number, plane = runs[k, 0], frames[like[runs[k, 0]]]
        top, bottom, at = runs[k, 1] + corner[0], runs[k, 2] + corner[0], runs[k, 3]
        start, stop = at + corner[1], runs[k, 4] + corner[1]
        first, last = max(top - WINDOW_REACH_PX, 0), min(bottom + WINDOW_REACH_PX, plane.shape[0])
        left, right = max(start - MARGIN_PX, 0), min(stop + MARGIN_PX, plane.shape[1])
        pixels = np.empty((last - first, right - left), np.float32)
        coarse = np.empty(((last - first + 1) // 2 + 2, (right - left + 1) // 2 + 2), np.float32)
        coarse_part(plane, first // 2 - 1, left // 2 - 1, coarse)
        for y in range(last - first):
            load_row(plane[first + y], left, pixels[y])
        inner = (top - first, bottom - first, start - left, stop - left)
        keep_band(pixels, coarse, inner, (runs[k, 1], at), number, follow, results, nothing)
        for y in range(top, bottom):
            out, end = y - corner[0], runs[k, 4]
            widen_range(plane[y, start:stop], low[out, at:end], high[out, at:end])


@compiled
def mix_row(fused, low, high, weight, rounding, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Mix a row of a fused image, clipped, into the blend in place, where it has any weight."""
    for x in range(out.size):
        blend, share = np.float32(out[x]), weight[x]
        value, least, most = fused[x], np.float32(low[x]), np.float32(high[x])
        value = value if value > least else least
        value = value if value < most else most
        value = value if share > np.float32(0) else blend
        out[x] = blend + share * (value - blend) + rounding


@compiled
def mix_clipped(fused, low, high, weight, corner, rounding, image):  # type: ignore[no-untyped-def] # pragma: no cover
    """Mix the rows of a fused part, which begins at `corner`, into the blend in place."""
    left, right = corner[1], corner[1] + fused.shape[1]
    for y in range(fused.shape[0]):
        row = image[corner[0] + y, left:right]
        mix_row(fused[y], low[y], high[y], weight[y], rounding, row)
