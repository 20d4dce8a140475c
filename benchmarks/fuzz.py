"""Fuzz the readers of what users and disks hand to the program: nothing but one-line refusals.

python benchmarks/fuzz.py TARGET SECONDS [FOLDER]

TARGET is tiff, png, jpeg, zarr, journal or settings; FOLDER keeps the inputs that reached new code
between runs. It needs `pip install atheris`, which is in no requirements file, because there are
wheels for few versions of Python. An input that ends neither in an answer nor in a refusal is
written to crash-*; make a test of it.
"""

import contextlib
import json
import logging
import os
import platform
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import atheris
import imagecodecs
import numpy as np

INSTRUMENTED = ["tifffile", "microscope", "scan", "results", "report", "config", "driver"]

with atheris.instrument_imports(include=INSTRUMENTED):
    import tifffile

    import config
    from microscope.image_files import read_image
    from microscope.opening import prepare
    from report import columns
    from report.columns import Geometry
    from report.trace import trace_of
    from results.summary import format_summary, summarise
    from scan.checkpoint import Checkpoint
    from scan.errors import InputError, UserMistake
    from scan.events import Begun
    from scan.layout import make_plan
    from scan.lines import LineReader, line_of

MAX_BYTES = 4096  # of an input
PLAN = make_plan((3, 3), (160, 160), 32, 0.5, steered=True)
PIXELS = np.arange(2 * 16 * 16, dtype=np.uint16).reshape(2, 16, 16)


def require_one_line(error: Exception) -> None:
    """Raise AssertionError if a refusal cannot be printed as it is."""
    assert str(error).isprintable(), repr(str(error))


def read_file(suffix: str) -> Callable[[bytes], None]:
    """Return the target that reads an image file."""

    def target(data: bytes) -> None:
        FILE.with_suffix(suffix).write_bytes(data)
        try:
            read_image(FILE.with_suffix(suffix))
        except InputError as error:
            require_one_line(error)

    return target


def read_zarr(data: bytes) -> None:
    """Read an OME-Zarr image whose two metadata files are the two halves of the input."""
    group, _, array = data.partition(b"\n\n")
    (FILE / "0").mkdir(parents=True, exist_ok=True)
    (FILE / "zarr.json").write_bytes(group)
    (FILE / "0" / "zarr.json").write_bytes(array)
    try:
        read_image(FILE)
    except InputError as error:
        require_one_line(error)


def read_journal(data: bytes) -> None:
    """Make of a journal what a resume, a summary, a report and a trace make of it."""
    events = LineReader().read(data.split(b"\n"))
    checkpoint = Checkpoint.of(events, PLAN)
    with contextlib.suppress(InputError):
        checkpoint.require_same_run({}, "run")
    summary = summarise(events)
    json.dumps([summary, trace_of(events)], allow_nan=False)
    format_summary(summary)
    for begun in [event for event in events if isinstance(event, Begun)][-1:]:
        columns.fields(Geometry(begun), events)
        columns.focus(Geometry(begun), checkpoint.focused)
    columns.timeline(events, ("capture", "stack"))


def read_settings(data: bytes) -> None:
    """Read a settings file and plan its scan."""
    FILE.with_suffix(".toml").write_bytes(data)
    try:
        settings = config.validate(config.read_toml(FILE.with_suffix(".toml")))
        config.validate(json.loads(json.dumps(settings.model_dump(exclude_none=True))))
        if settings.microscope == "simulated" and (settings.fields or 0) * settings.stripes < 1000:
            prepare(settings)
    except (config.SettingsError, UserMistake) as error:
        require_one_line(error)


def seeds_of_tiff() -> list[bytes]:
    """Small files of the kinds that are read."""
    found = []
    for options in (
        {}, {"imagej": True}, {"ome": True}, {"compression": "zlib"}, {"tile": (16, 16)},
        {"bigtiff": True}, {"compression": "lzw"}, {"byteorder": ">"}, {"metadata": None},
        {"compression": "jpeg"}, {"compression": "packbits"},
        {"compression": "zlib", "predictor": True},
    ):  # fmt: skip
        pixels = PIXELS.astype(np.uint8) if options.get("compression") == "jpeg" else PIXELS
        file = FILE.with_suffix(".seed.tif")
        kind: Any = options
        tifffile.imwrite(file, pixels, photometric="minisblack", **kind)
        found.append(file.read_bytes())
    return found


def seeds_of_zarr() -> list[bytes]:
    """Metadata of a group and of an array."""
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group = {"zarr_format": 3, "node_type": "group",
             "attributes": {"ome": {"version": "0.5", "multiscales": [image]}}}  # fmt: skip
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    shards = {"chunk_shape": [1, 8, 8], "codecs": [little], "index_codecs": [little]}
    found = []
    for codecs in ([little], [{"name": "sharding_indexed", "configuration": shards}]):
        array = {
            "zarr_format": 3, "node_type": "array", "shape": [2, 16, 16], "data_type": "uint16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 16, 16]}},
            "chunk_key_encoding": {"name": "default"}, "fill_value": 0, "codecs": codecs,
        }  # fmt: skip
        found.append(json.dumps(group).encode() + b"\n\n" + json.dumps(array).encode())
    return found


def seeds_of_journal() -> list[bytes]:
    """The journal of a small scan, with checksums and without."""
    from tests.results.scans import resumed_scan

    begun = Begun.of(PLAN, process_began_s=1.0, versions={}, identity={})
    events = [begun, *resumed_scan()[1:]]
    sealed = b"".join(map(line_of, events))
    return [sealed, "\n".join(event.to_json() for event in events).encode()]


def seeds_of_settings() -> list[bytes]:
    """The settings of a small scan, complete and few."""
    small = {"stripes": 2, "fields": 3, "field_px": 128}
    return [config.validate(small).to_toml().encode(), b'predictor = "onnx:a.onnx?maps=distance"\n']


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "tiff": (read_file(".tif"), seeds_of_tiff),
    "png": (read_file(".png"), lambda: [imagecodecs.png_encode(plane) for plane in PIXELS]),
    "jpeg": (
        read_file(".jpg"),
        lambda: [imagecodecs.jpeg8_encode(plane.astype(np.uint8)) for plane in PIXELS],
    ),
    "zarr": (read_zarr, seeds_of_zarr),
    "journal": (read_journal, seeds_of_journal),
    "settings": (read_settings, seeds_of_settings),
}


# ------------------------------------------------------------------------ mutation of JSON

EXTREMES = [
    None, True, 0, 1, -1, 2**31, 2**53, 2**64, 10**30, 0.5, -0.0, 1e300, "", "x", "/", "..", "int8",
    [], {}, [[]], [0], [2**31] * 3, [1, 2**20, 2**20],
]  # fmt: skip
SEPARATORS = {"zarr": b"\n\n", "journal": b"\n"}  # of JSON documents in an input


def slots(document: Any) -> list[tuple[Any, Any]]:
    """Return every value in a document, as its container and its key or index."""
    keys: list[Any] = list(document) if isinstance(document, dict) else []
    keys += range(len(document)) if isinstance(document, list) else []
    return [
        *((document, key) for key in keys),
        *(slot for key in keys for slot in slots(document[key])),
    ]


def mutator(separator: bytes) -> Callable[[bytes, int, int], bytes]:
    """Return a mutator that replaces a value, or changes bytes as libFuzzer does."""

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        documents = data.split(separator)
        at = rng.randrange(len(documents))
        try:
            document = json.loads(documents[at])
            container, key = rng.choice(slots(document))
        except (ValueError, IndexError, RecursionError):
            return atheris.Mutate(data, max_size)
        if rng.random() < 0.5:
            return atheris.Mutate(data, max_size)
        container[key] = rng.choice(EXTREMES)
        documents[at] = json.dumps(document).encode()
        return separator.join(documents)[:max_size]

    return mutate


def main(target: str, seconds: int, folder: Path) -> None:
    """Fuzz a target for so many seconds."""
    logging.disable()
    run, seeds = TARGETS[target]
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (folder / f"seed-{number}").write_bytes(seed)
    print(f"{target}: {seconds} s, Python {platform.python_version()}, {os.cpu_count()} CPUs")
    longest = max(MAX_BYTES, *(len(file.read_bytes()) for file in folder.iterdir()))
    options = [f"-max_total_time={seconds}", f"-max_len={longest}", "-timeout=20"]
    custom: dict[str, Any] = {}
    if target in SEPARATORS:
        custom = {"custom_mutator": mutator(SEPARATORS[target])}
    atheris.Setup([sys.argv[0], *options, "-rss_limit_mb=4096", str(folder)], run, **custom)
    atheris.Fuzz()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as own:
        FILE = Path(own) / "input"
        corpus = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(own) / "corpus"
        main(sys.argv[1], int(sys.argv[2]), corpus)
