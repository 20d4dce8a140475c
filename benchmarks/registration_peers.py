"""One peer of benchmarks/registration.py, or our rule, run by a Python that has it: NAME FOLDER.

Peers begin after the last stack; of our rule only what its last field needs comes after it.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np


def ashlar(images, origins, sigma):
    """ASHLAR's edge aligner: pixels are micrometres, so its limit of shift is given in pixels."""
    from ashlar import reg

    flat = images.reshape(-1, *images.shape[-2:])

    class Metadata(reg.Metadata):
        _num_images = len(flat)
        num_channels, pixel_size, pixel_dtype = 1, 1.0, flat.dtype

        def tile_position(self, i):
            return origins.reshape(-1, 2)[i].astype(float)

        def tile_size(self, i):
            return np.array(flat.shape[1:])

    class Reader(reg.Reader):
        metadata = Metadata()

        def read(self, series, c):
            return flat[series]

    aligner = reg.EdgeAligner(Reader(), max_shift=46, filter_sigma=sigma, do_make_thumbnail=False)
    aligner.run()
    return np.asarray(aligner.positions).reshape(origins.shape)


def m2stitch(images, origins):
    """MIST in Python, with a lower threshold, because its own accepts next to nothing here."""
    import m2stitch as peer

    rows, columns = (np.indices(images.shape[:2])[k].ravel() for k in (0, 1))
    flat = images.reshape(-1, *images.shape[-2:])
    given = {"position_initial_guess": origins.reshape(-1, 2), "ncc_threshold": 0.1}
    found, _ = peer.stitch_images(flat, rows, columns, row_col_transpose=False, **given)
    return found[["y_pos", "x_pos"]].to_numpy().reshape(origins.shape)


def multiview_stitcher(images, origins):
    """Pairwise correlation and global optimisation with its defaults."""
    from multiview_stitcher import msi_utils, registration
    from multiview_stitcher import spatial_image_utils as si_utils

    tiles = []
    for place in np.ndindex(*images.shape[:2]):
        sim = si_utils.get_sim_from_array(
            images[place], dims=["y", "x"], scale={"y": 1.0, "x": 1.0},
            translation=dict(zip("yx", map(float, origins[place]), strict=True)),
            transform_key="stage",
        )  # fmt: skip
        tiles.append(msi_utils.get_msim_from_sim(sim, scale_factors=[]))
    registration.register(
        tiles, transform_key="stage", new_transform_key="found", reg_channel_index=0
    )
    shifts = []
    for tile in tiles:
        found = msi_utils.get_transform_from_msim(tile, transform_key="found")
        shifts.append(np.asarray(found).squeeze()[:2, 2])
    return origins + np.array(shifts).reshape(origins.shape)


def ours(images, origins):
    """Our rule, field by field as in a scan; also the seconds from the last field on."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from imaging.registration import Registration, match_overlap
    from scan.layout import make_plan

    (stripes, fields), size = images.shape[:2], images.shape[2]
    overlap_px = size - int(origins[0, 1, 1] - origins[0, 0, 1])
    plan = make_plan((fields,) * stripes, (size, size), overlap_px, 1.0, steered=False)
    state, placed = Registration(plan, {}, {}), {}
    for field in plan.fields:
        began_s = time.perf_counter()
        others = state.add(field.place)
        pairs = ((plan.at(each), (images[field.place], images[each])) for each in others)
        state.add_matches(field.place, others, [match_overlap(field, *pair) for pair in pairs])
        placed |= dict(state.decide())
    after_s = time.perf_counter() - began_s
    offsets = [[placed[s, f].offset_px for f in range(fields)] for s in range(stripes)]
    return origins + np.array(offsets), after_s


PEERS = {
    "ours": ours,
    "ashlar": lambda *tiles: ashlar(*tiles, 0.0),
    "ashlar-1": lambda *tiles: ashlar(*tiles, 1.0),
    "ashlar-3": lambda *tiles: ashlar(*tiles, 3.0),
    "m2stitch": m2stitch,
    "multiview-stitcher": multiview_stitcher,
}


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    tiles = np.load(folder / "tiles.npz")
    images, origins = tiles["images"], tiles["origins"]
    cpu_s, began_s = time.process_time(), time.perf_counter()
    found = PEERS[name](images, origins)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - began_s
    positions, after_s = found if isinstance(found, tuple) else (found, wall_s)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    np.savez(
        folder / f"{name}.npz", positions=positions, seconds=cpu_s, after=after_s, peak=peak_mib
    )
