"""The loops of focus stacking that numpy cannot run at memory speed.

Every loop reads one row of one plane sequentially: a second stream costs more than all arithmetic.
Constants are float32, since one float64 makes a whole loop float64. Rows must be contiguous for
the compiler: rows that are unpacked, or cut from a wider array, are not. Comparisons are written
out, since `min` and `max` handle NaN; so are copies of rows, since assignment to a slice takes
seconds to compile. Compiled code is kept on disk.
"""

import numpy as np

from imaging.code_cache import compiler

BLOCK_PX = 8  # small enough for cell-sized relief, large enough to average shot noise
BAND_REACH_PX = 3  # of the box of seven pixels that splits off fine detail
NEARLY = np.float32(1e-3)  # planes: rounding of interpolated depths is less
FOUR, HALF, EIGHTH = np.float32(4), np.float32(0.5), np.float32(1 / BLOCK_PX)
# A Gaussian of one block, and how many times its own energy a block may get from a neighbour.
TAPS = tuple(np.float32(tap) for tap in (0.40262, 0.24420, 0.05449))
CAP = np.float32(4)

# Sums may be reordered for the processor; NaN and infinity keep their meaning.
compiled = compiler(fastmath={"contract", "reassoc", "nsz"})


@compiled
def copy_row(row, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Copy one row."""
    for x in range(out.size):
        out[x] = row[x]


@compiled
def bin_row(upper, lower, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Sum 2x2 pixels of two rows; beyond the plane's edge the last column is repeated."""
    whole = min(upper.size // 2, out.size)
    for x in range(whole):
        out[x] = np.float32(upper[2 * x]) + np.float32(upper[2 * x + 1])
    for x in range(whole):
        out[x] += np.float32(lower[2 * x]) + np.float32(lower[2 * x + 1])
    last = upper.size - 1
    for x in range(whole, out.size):
        left, right = min(2 * x, last), min(2 * x + 1, last)
        out[x] = np.float32(upper[left]) + np.float32(upper[right])
        out[x] += np.float32(lower[left]) + np.float32(lower[right])


@compiled
def add_areas(glow, light):  # type: ignore[no-untyped-def] # pragma: no cover
    """Add up runs of columns, of whole blocks, and clear them."""
    blocks = glow.size // 4
    for x in range(glow.size):
        light[x // 4 * light.size // blocks] += glow[x]
        glow[x] = 0


@compiled
def bin_wide(plane, row, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write one row of the 2x2-binned plane, its ends repeated; so are rows beyond the last."""
    last, width = plane.shape[0] - 1, out.size - 2
    bin_row(plane[min(2 * row, last)], plane[min(2 * row + 1, last)], out[1 : width + 1])
    out[0], out[width + 1] = out[1], out[width]


@compiled
def bend_squares(rows, total):  # type: ignore[no-untyped-def] # pragma: no cover
    """Add up the squared Laplacian over four of six rows; the outer columns are neighbours."""
    for x in range(total.size):
        squares = np.float32(0)
        for y in range(1, 5):
            bend = FOUR * rows[y, x + 1] - rows[y, x] - rows[y, x + 2]
            bend -= rows[y - 1, x + 1] + rows[y + 1, x + 1]
            squares += bend * bend
        total[x] = squares


@compiled
def block_energy(plane, energy, light):  # type: ignore[no-untyped-def] # pragma: no cover
    """Sum the squared 4-neighbour Laplacian of the 2x2-binned plane over blocks of 8x8 pixels.

    `light` gets the sums of every fourth binned row over areas of the plane. Six binned rows serve
    one row of blocks: the four of the blocks and one on each side.
    """
    light[:] = 0
    blocks, width = energy.shape[0], 4 * energy.shape[1]
    rows = np.empty((6, width + 2), np.float32)
    total, glow = np.zeros(width, np.float32), np.zeros(width, np.float32)
    bin_wide(plane, 0, rows[4])
    copy_row(rows[4], rows[5])
    for row in range(blocks):
        copy_row(rows[4], rows[0])
        copy_row(rows[5], rows[1])
        for k in range(2, 6):
            if row < blocks - 1 or k < 5:
                bin_wide(plane, 4 * row + k - 1, rows[k])
            else:
                copy_row(rows[4], rows[5])
        bend_squares(rows, total)
        for block in range(energy.shape[1]):
            four = total[4 * block : 4 * block + 4]
            energy[row, block] = (four[0] + four[1]) + (four[2] + four[3])
        for x in range(width):
            glow[x] += rows[4, x + 1]
        area = row * light.shape[0] // blocks
        if (row + 1) * light.shape[0] // blocks > area:
            add_areas(glow, light[area])


@compiled
def mix_capped(row, near, far, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Smooth along five elements; of a neighbour counts at most CAP times the centre.

    `near` and `far` hold the neighbours at one and two steps, each in pairs.
    """
    for x in range(out.size):
        here = row[x]
        cap = CAP * here
        one, other = near[0][x], near[1][x]
        one, other = one if one < cap else cap, other if other < cap else cap
        total = TAPS[0] * here + TAPS[1] * (one + other)
        one, other = far[0][x], far[1][x]
        one, other = one if one < cap else cap, other if other < cap else cap
        out[x] = total + TAPS[2] * (one + other)


@compiled
def smooth_energy(energy):  # type: ignore[no-untyped-def] # pragma: no cover
    """Smooth the energies (y, x) of one plane in place: a Gaussian whose strong values leak less.

    A block next to one with thousands of times its energy would else peak where that one does.
    """
    rows, columns = energy.shape
    smooth = np.empty((rows, columns), np.float32)
    wide = np.empty(columns + 4, np.float32)
    for y in range(rows):
        copy_row(energy[y], wide[2 : columns + 2])
        wide[0] = wide[1] = wide[2]
        wide[columns + 2] = wide[columns + 3] = wide[columns + 1]
        near = (wide[1 : columns + 1], wide[3 : columns + 3])
        far = (wide[:columns], wide[4 : columns + 4])
        mix_capped(energy[y], near, far, smooth[y])
    last = rows - 1
    for y in range(rows):
        near = (smooth[max(y - 1, 0)], smooth[min(y + 1, last)])
        far = (smooth[max(y - 2, 0)], smooth[min(y + 2, last)])
        mix_capped(smooth[y], near, far, energy[y])


@compiled
def peaks(energy, floor, mean, height, peak, around):  # type: ignore[no-untyped-def] # pragma: no cover
    """Find minimum, mean and maximum energy of each block, its plane, and the planes around it."""
    planes, rows, columns = energy.shape
    for row in range(rows):
        for x in range(columns):
            floor[row, x] = mean[row, x] = height[row, x] = energy[0, row, x]
            peak[row, x] = 0
        for plane in range(1, planes):
            for x in range(columns):
                value = energy[plane, row, x]
                mean[row, x] += value
                floor[row, x] = min(floor[row, x], value)
                if value > height[row, x]:
                    height[row, x], peak[row, x] = value, plane
        for x in range(columns):
            mean[row, x] /= np.float32(planes)
            center = min(max(peak[row, x], 1), planes - 2) if planes > 2 else 1
            for step in range(3):
                around[step, row, x] = energy[min(center - 1 + step, planes - 1), row, x]


@compiled
def spread_row(nodes, wide):  # type: ignore[no-untyped-def] # pragma: no cover
    """Interpolate one row of blocks to pixels, from half a block before the first centre."""
    last = nodes.size - 1
    for cell in range(nodes.size + 1):
        left = nodes[max(cell - 1, 0)]
        slope = (nodes[min(cell, last)] - left) * EIGHTH
        for x in range(BLOCK_PX):
            wide[cell * BLOCK_PX + x] = left + slope * (np.float32(x) + HALF)


@compiled
def spread_cells(grid, cell_row, above, below, depth):  # type: ignore[no-untyped-def] # pragma: no cover
    """Interpolate one row of cells, the pixels between two rows of block centres."""
    spread_row(grid[max(cell_row - 1, 0)], above)
    spread_row(grid[min(cell_row, grid.shape[0] - 1)], below)
    top = cell_row * BLOCK_PX - BLOCK_PX // 2
    for y in range(max(top, 0), min(top + BLOCK_PX, depth.shape[0])):
        share = (np.float32(y - top) + HALF) * EIGHTH
        for x in range(depth.shape[1]):
            depth[y, x] = above[x + 4] + share * (below[x + 4] - above[x + 4])


@compiled
def lower_planes(above, below, last, lower):  # type: ignore[no-untyped-def] # pragma: no cover
    """Find the plane below each cell's depth, or -1 where it changes, or nearly, in the cell."""
    for cell in range(lower.size):
        first, end = cell * BLOCK_PX, cell * BLOCK_PX + BLOCK_PX - 1
        least = min(min(above[first], above[end]), min(below[first], below[end]))
        most = max(max(above[first], above[end]), max(below[first], below[end]))
        plane = min(int(least - NEARLY), last - 1)
        lower[cell] = plane if plane == min(int(most + NEARLY), last - 1) else -1


@compiled
def take_crossing(frames, y, start, stop, depth, below, above):  # type: ignore[no-untyped-def] # pragma: no cover
    """Take a few pixels of a row that lie between different pairs of planes."""
    highest = frames.shape[0] - 2
    for x in range(start, stop):
        plane = np.uint32(min(np.int32(depth[x]), highest))
        below[x], above[x] = frames[plane, y, x], frames[plane + np.uint32(1), y, x]


@compiled
def take_row(frames, y, lower, depth, below, above):  # type: ignore[no-untyped-def] # pragma: no cover
    """Take each pixel of a row from the plane below its depth, and from the one above."""
    width, cell = below.size, 0
    while cell < lower.size:
        plane, end = lower[cell], cell + 1
        while end < lower.size and lower[end] == plane:
            end += 1
        first, stop = max(cell * BLOCK_PX - 4, 0), min(end * BLOCK_PX - 4, width)
        if plane < 0:
            take_crossing(frames, y, first, stop, depth, below, above)
        elif stop > first:
            copy_row(frames[plane, y, first:stop], below[first:stop])
            copy_row(frames[plane + 1, y, first:stop], above[first:stop])
        cell = end


@compiled
def mix_row(below, above, depth, last, rounding, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Blend a row of pixels from the planes below and above their depth."""
    highest = np.int32(last - 1)
    for x in range(out.size):
        plane = np.int32(depth[x])
        part = depth[x] - np.float32(plane if plane < highest else highest)
        value = np.float32(below[x])
        value += part * (np.float32(above[x]) - value)
        out[x] = value + rounding


@compiled
def blend(frames, grid, rounding, image, depth):  # type: ignore[no-untyped-def] # pragma: no cover
    """Interpolate the depth grid to pixels and blend the two planes around it.

    Runs of pixels are copied before whole rows are mixed: short runs would not fill the registers.
    """
    (height, width), last = image.shape, frames.shape[0] - 1
    rows, columns = grid.shape
    upper = np.empty((columns + 1) * BLOCK_PX, np.float32)
    under = np.empty((columns + 1) * BLOCK_PX, np.float32)
    lower = np.empty(columns + 1, np.int32)
    below, above = np.empty(width, image.dtype), np.empty(width, image.dtype)
    for cell_row in range(rows + 1):
        spread_cells(grid, cell_row, upper, under, depth)
        lower_planes(upper, under, last, lower)
        top = cell_row * BLOCK_PX - BLOCK_PX // 2
        for y in range(max(top, 0), min(top + BLOCK_PX, height)):
            take_row(frames, y, lower, depth[y], below, above)
            mix_row(below, above, depth[y], last, rounding, image[y])


@compiled
def move_window(leaving, entering, total):  # type: ignore[no-untyped-def] # pragma: no cover
    """Move sums over rows down by one row."""
    for x in range(total.size):
        total[x] += entering[x] - leaving[x]


@compiled
def detail_of_row(total, row, band, square):  # type: ignore[no-untyped-def] # pragma: no cover
    """Subtract the mean of 7x7 pixels, given sums of columns, from a row; add up squares."""
    for x in range(band.size):
        around = (total[x] + total[x + 6]) + (total[x + 1] + total[x + 5])
        around += (total[x + 2] + total[x + 4]) + total[x + 3]
        value = row[x] - around * np.float32(1 / 49)
        band[x] = value
        square[x] += value * value


@compiled
def load_row(row, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Copy one row as float32, its ends repeated to the left and right."""
    width = row.size
    for x in range(width):
        out[BAND_REACH_PX + x] = np.float32(row[x])
    for x in range(BAND_REACH_PX):
        out[x] = out[BAND_REACH_PX]
        out[BAND_REACH_PX + width + x] = out[BAND_REACH_PX + width - 1]


@compiled
def split_band(rows, band, power):  # type: ignore[no-untyped-def] # pragma: no cover
    """Split off the fine detail of eight rows, and its mean square in each block."""
    width = band.shape[1]
    total = np.zeros(rows.shape[1], np.float32)
    square = np.zeros(width, np.float32)
    nothing = np.zeros(rows.shape[1], np.float32)
    for y in range(2 * BAND_REACH_PX):
        move_window(nothing, rows[y], total)
    for y in range(BLOCK_PX):
        move_window(rows[y - 1] if y > 0 else nothing, rows[y + 2 * BAND_REACH_PX], total)
        here = rows[y + BAND_REACH_PX, BAND_REACH_PX : BAND_REACH_PX + width]
        detail_of_row(total, here, band[y], square)
    for block in range(power.size):
        first, stop = block * BLOCK_PX, min(block * BLOCK_PX + BLOCK_PX, width)
        squares = np.float32(0)
        for x in range(first, stop):
            squares += square[x]
        power[block] = squares / np.float32(BLOCK_PX * (stop - first))


@compiled
def widen_range(row, low, high):  # type: ignore[no-untyped-def] # pragma: no cover
    """Extend each column's range by one row."""
    for x in range(low.size):
        value = row[x]
        low[x] = value if value < low[x] else low[x]
        high[x] = value if value > high[x] else high[x]


@compiled
def local_range(rows, least, most):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write the minimum and maximum around each pixel's block, neighbouring blocks included."""
    width, blocks = least.size, -(-least.size // BLOCK_PX)
    low, high = np.empty(rows.shape[1], np.float32), np.empty(rows.shape[1], np.float32)
    copy_row(rows[0], low)
    copy_row(rows[0], high)
    for y in range(1, rows.shape[0]):
        widen_range(rows[y], low, high)
    bottom, top = np.empty(blocks, np.float32), np.empty(blocks, np.float32)
    for block in range(blocks):
        first = block * BLOCK_PX + BAND_REACH_PX
        lowest, highest = low[first], high[first]
        for x in range(first, min(first + BLOCK_PX, width + BAND_REACH_PX)):
            lowest = low[x] if low[x] < lowest else lowest
            highest = high[x] if high[x] > highest else highest
        bottom[block], top[block] = lowest, highest
    for block in range(blocks):
        before, after = max(block - 1, 0), min(block + 1, blocks - 1)
        lowest = min(bottom[before], min(bottom[block], bottom[after]))
        highest = max(top[before], max(top[block], top[after]))
        for x in range(block * BLOCK_PX, min(block * BLOCK_PX + BLOCK_PX, width)):
            least[x], most[x] = lowest, highest


@compiled
def certain_share(power, noise, wide):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write the share of detail that is not noise at every pixel; return its maximum."""
    last, greatest = power.size - 1, np.float32(0)
    for block in range(power.size):
        around = np.float32(2) * power[block]
        around += power[max(block - 1, 0)] + power[min(block + 1, last)]
        share = np.float32(1) - FOUR * noise[block] / max(around, np.float32(1e-9))
        for x in range(block * BLOCK_PX, min(block * BLOCK_PX + BLOCK_PX, wide.size)):
            wide[x] = share
        greatest = max(greatest, share)
    return greatest


@compiled
def sharpen_row(row, band, depth, share, rate, least, most, rounding, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Add detail to a row: `share` of it is not noise, `rate` is that of blur with depth.

    The series of exp to third order is within 0.001 for exponents below one half.
    """
    one, third = np.float32(1), np.float32(1 / 3)
    for x in range(out.size):
        part = depth[x] - np.float32(np.int32(depth[x]))
        lost = rate * part * (one - part)
        gain = one + lost * (one + lost * HALF * (one + lost * third))
        gain = share[x] * gain - one
        gain = gain if gain > np.float32(0) else np.float32(0)
        value = row[x] + gain * band[x]
        value = value if value > least[x] else least[x]
        value = value if value < most[x] else most[x]
        out[x] = value + rounding


@compiled
def sharpen(image, depth, noise, rate, rounding):  # type: ignore[no-untyped-def] # pragma: no cover
    """Restore in place the detail lost by blending two planes, where it is not noise.

    Eight rows are sharpened at a time, from copies of them and their neighbours, so no changed row
    is read.
    """
    height, width = image.shape
    margin = 2 * BAND_REACH_PX
    rows = np.empty((BLOCK_PX + margin, width + margin), np.float32)
    band = np.empty((BLOCK_PX, width), np.float32)
    power = np.empty(noise.shape[1], np.float32)
    share, least = np.empty(width, np.float32), np.empty(width, np.float32)
    most = np.empty(width, np.float32)
    greatest_gain = np.exp(rate * np.float32(0.25))
    for k in range(margin):
        load_row(image[min(max(k - BAND_REACH_PX, 0), height - 1)], rows[BLOCK_PX + k])
    for block_row in range(noise.shape[0]):
        top = block_row * BLOCK_PX
        for k in range(margin):
            copy_row(rows[BLOCK_PX + k], rows[k])
        for k in range(BLOCK_PX):
            load_row(image[min(top + BAND_REACH_PX + k, height - 1)], rows[margin + k])
        split_band(rows, band, power)
        if certain_share(power, noise[block_row], share) * greatest_gain <= np.float32(1):
            continue
        local_range(rows, least, most)
        for y in range(top, min(top + BLOCK_PX, height)):
            sharpen_row(
                rows[y - top + BAND_REACH_PX, BAND_REACH_PX : BAND_REACH_PX + width],
                band[y - top], depth[y], share, rate, least, most, rounding, image[y],
            )  # fmt: skip
