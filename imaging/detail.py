"""The finest band of fused pyramids, in one loop over the pixels of a tile.

Three quarters of a pyramid's work is its finest band. Computed in one pass, with the window of the
energy in a few rows, nothing but pixels and results is read from memory.
"""

import numpy as np

from imaging.kernels import compiled

WINDOW_REACH_PX = 2  # of the energy
SIX, FOUR, WHOLE = np.float32(6), np.float32(4), np.float32(1 / 64)


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
def keep_row(energy, band, best, kept, stronger):  # type: ignore[no-untyped-def] # pragma: no cover
    """Keep the coefficients of a row whose energy is above the best so far.

    Two loops, since one that writes to three arrays is not vectorised; nor is one that loads values
    in a condition.
    """
    for x in range(best.size):
        stronger[x] = energy[x] > best[x]
    for x in range(best.size):
        new, old, coefficient, before = energy[x], best[x], band[x], kept[x]
        kept[x] = coefficient if new > old else before
        best[x] = new if new > old else old


@compiled
def keep_detail(plane, coarse, tile, best, kept, stronger):  # type: ignore[no-untyped-def] # pragma: no cover
    """Keep the finest coefficients of one tile where they are stronger than those of other planes.

    `coarse` is the plane's next level with a margin of one pixel; `tile` the first and last row and
    column, first ones multiples of four; `stronger` tells where one was kept. Energies are sums
    over 5x5 coefficients, of which those beyond the plane are 0.
    """
    height, width = plane.shape
    top, bottom, start, stop = tile
    columns = stop - start
    left, right = max(start - 4, 0), min(stop + 4, width)
    skip = 4 - (start - left)
    band = np.zeros((5, columns + 8), np.float32)
    square = np.zeros((5, columns + 8), np.float32)
    wide = np.empty((right - left) // 2 + 3, np.float32)
    total, energy = np.empty(columns + 4, np.float32), np.empty(columns, np.float32)
    for row in range(top - WINDOW_REACH_PX, bottom + WINDOW_REACH_PX):
        at, size = row % 5, right - left
        if 0 <= row < height:
            small = row // 2
            first, last = left // 2, left // 2 + wide.size
            last = min(last, coarse.shape[1])
            interpolate_rows(
                coarse[small, first:last], coarse[small + 1, first:last],
                coarse[small + 2, first:last], row % 2 == 1, wide[: last - first],
            )  # fmt: skip
            own, its_square = band[at, skip : skip + size], square[at, skip : skip + size]
            subtract_row(plane[row, left:right], wide, own, its_square)
        else:
            for x in range(square.shape[1]):
                square[at, x] = 0
        y = row - WINDOW_REACH_PX
        if y >= top:
            end = WINDOW_REACH_PX + total.size
            sum_window(
                square[0, WINDOW_REACH_PX:end], square[1, WINDOW_REACH_PX:end],
                square[2, WINDOW_REACH_PX:end], square[3, WINDOW_REACH_PX:end],
                square[4, WINDOW_REACH_PX:end], total, energy,
            )  # fmt: skip
            middle = band[y % 5, 4 : 4 + columns]
            keep_row(
                energy, middle, best[y, start:stop], kept[y, start:stop], stronger[y, start:stop]
            )
