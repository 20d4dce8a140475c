"""A recording: its files, what they tell of themselves, and the fields that they make.

The coordinates of a plane come from the first of these that tells them: the metadata of the file,
files beside it (`sidecars`), names, order. Nothing is dropped without a line. No pixel is read.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from microscope.assembly import Assembled, Plane, assemble, in_words
from microscope.coordinates import Coordinates, Label, Unclear, named
from microscope.counting import counted
from microscope.file_names import STRAY, Reading, read_names
from microscope.image_files import IMAGE_SUFFIXES, examine
from microscope.image_info import TAKES, ImageInfo
from microscope.input_checks import require_regular
from microscope.ome_zarr import ngff_metadata
from microscope.sidecars import read_sidecars
from microscope.tiff_metadata import described_siblings
from microscope.vendor_files import SUFFIXES as VENDOR_SUFFIXES
from scan.errors import InputError

READERS = min(16, 4 * (os.cpu_count() or 1))  # threads: much of the time they wait for the disk
HINT = "move damaged files away, or export them once more"
MAX_NAMED = 3  # of files that are left out


@dataclass(frozen=True)
class Gathered:
    """The planes of a recording, assembled, and what its files have in common.

    Attributes
    ----------
    assembled : Assembled
    images : tuple of ImageInfo
        Of every file that can be read and is used.
    damaged : dict
        Why files cannot be read, by path; their planes are those of the files beside them.
    understood : str
        Size of the recording, and what told the coordinates.
    caveats : tuple of str
        Beyond those of `assembled`: what was left out.
    """

    assembled: Assembled
    images: tuple[ImageInfo, ...]
    damaged: Mapping[Path, InputError]
    understood: str
    caveats: tuple[str, ...]


class _File(NamedTuple):
    """A file by its name relative to the recording, and what it tells: None if it is damaged."""

    name: str
    path: Path
    info: ImageInfo | None


def gather(
    path: Path,
    *,
    name_pattern: str | None = None,
    channels: Sequence[Label] = (),
    reference: Label | None = None,
) -> Gathered:
    """Return the planes of a recording in their places.

    Raises
    ------
    InputError
        A file cannot be used, or it is not clear where planes belong; the subject names it.
    """
    found = _images_in(path)
    files, damaged = _examined(found, path)
    try:
        return _gathered(path, files, damaged, name_pattern, (channels, reference))
    except Unclear as unclear:
        raise unclear.about(path) from None


def _gathered(
    path: Path,
    files: Sequence[_File],
    damaged: Mapping[Path, InputError],
    name_pattern: str | None,
    chosen: tuple[Sequence[Label], Label | None],
) -> Gathered:
    files = _with_siblings(files)
    planes, by, left_out, guesses = _placed(path, files, name_pattern)
    used = {plane.path for plane in planes}
    images = tuple(file.info for file in files if file.info and file.path in used)
    names = next((info.channels for info in images if any(info.channels)), ())
    colours = next((info.colours for info in images if any(info.colours)), ())
    assembled = assemble(
        planes, wanted=chosen[0], reference=chosen[1], channel_names=names, colours=colours
    )
    caveats = [*guesses, *_caveats(path, images, left_out)]
    understood = f"{in_words(assembled.counts)}, by {by}"
    damaged = {file: error for file, error in damaged.items() if file in used}
    return Gathered(assembled, images, damaged, understood, tuple(caveats))


def _caveats(path: Path, images: Sequence[ImageInfo], left_out: Sequence[str]) -> list[str]:
    caveats = []
    if left_out:
        shown = named(left_out, MAX_NAMED)
        caveats.append(f"left out as projections or thumbnails: {_files(left_out)}, {shown}")
    if path.is_file() and images and images[0].set_name:
        caveats.append("one of several files of a set, read by itself")
        return caveats
    sets = {image.set_name: image.set_files for image in images}
    there = {image.path.name.lower() for image in images}
    missing = [name for files in sets.values() for name in files if name not in there]
    if missing:
        shown = named(missing, MAX_NAMED)
        caveats.append(f"missing of a set of files: {_files(missing)}, {shown}")
    return caveats


def _files(names: Sequence[str]) -> str:
    return "1 file" if len(names) == 1 else f"{len(names)} files"


# ----------------------------------------------------------------------------------- the files


def _images_in(path: Path) -> list[tuple[str, Path]]:
    """Return names, relative to the recording, and paths of all images; InputError if none."""
    require_regular(path, TAKES)
    if path.is_file() or ngff_metadata(path):
        return [(path.name, path)]
    found = list(_below(path, path))
    if not found:
        got = f"{'a folder without any' if path.is_dir() else 'nothing'}"
        raise InputError(str(path), f"{TAKES}, or sub-folders of these", got, "check the path")
    vendor = [name for name, file in found if file.suffix.lower() in VENDOR_SUFFIXES]
    if vendor and len(vendor) < len(found):
        got = f"{len(found) - len(vendor)} images beside {named(vendor, MAX_NAMED)}"
        raise InputError(str(path), "files of one kind", got, "move those of one kind away")
    return found


def _below(folder: Path, root: Path) -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for child in sorted(folder.iterdir()):
        if child.name.startswith("."):
            continue
        name = child.relative_to(root).as_posix()
        if child.is_dir():
            found += [(name, child)] if ngff_metadata(child) else _below(child, root)
        elif child.suffix.lower() in IMAGE_SUFFIXES:
            found.append((name, child))
    return found


def _examined(
    found: Sequence[tuple[str, Path]], root: Path
) -> tuple[list[_File], dict[Path, InputError]]:
    """Read the metadata of all files; InputError of the first if none can be read."""
    with ThreadPoolExecutor(READERS) as pool:
        pending = pool.map(_attempt, [path for _, path in found])
        results = list(counted(pending, "reading the metadata of files", len(found)))
    damaged = {
        path: result
        for (_, path), result in zip(found, results, strict=True)
        if isinstance(result, InputError)
    }
    if len(damaged) == len(found):
        raise next(iter(damaged.values()))
    files = [
        _File(name, path, None if isinstance(result, InputError) else result)
        for (name, path), result in zip(found, results, strict=True)
    ]
    return files, damaged


def _attempt(path: Path) -> ImageInfo | InputError:
    try:
        return examine(path)
    except InputError as error:
        return error


# ----------------------------------------------------------------------------------- the planes


def _with_siblings(files: Sequence[_File]) -> list[_File]:
    """Let the metadata of a set of files place those of it that do not tell it themselves."""
    images = [file.info for file in files if file.info]
    told = described_siblings(images, [file.path for file in files if not file.info])
    return [file._replace(info=told.get(file.path, file.info)) for file in files]


def _placed(
    root: Path, files: Sequence[_File], name_pattern: str | None
) -> tuple[list[Plane], str, tuple[str, ...], tuple[str, ...]]:
    """Return all planes, what told their coordinates, names of files left out, and guesses."""
    left_out: tuple[str, ...] = ()
    if any(map(_in_set, files)):  # beside metadata, a projection needs no other name to be known
        left_out = tuple(file.name for file in files if STRAY.search(_stem(file.name)))
        left_out = left_out if len(left_out) < len(files) else ()
        files = [file for file in files if file.name not in left_out]
    sets = [] if name_pattern else _whole_sets([file for file in files if _in_set(file)])
    others = [file for file in files if file not in sets]
    guesses: tuple[str, ...] = ()
    beside: tuple[dict[str, Coordinates], list[str]] = {}, []
    if root.is_dir():
        beside = read_sidecars(root, [file.name for file in others])
    planes = _of_sets(sets)
    by = [file.info.by for file in sets if file.info] + beside[1]
    if others:
        more, told, reading = _by_names(others, beside[0], name_pattern)
        planes += more
        by += told
        left_out, guesses = left_out + reading.left_out, reading.guesses
    return planes, " and ".join(dict.fromkeys(by)) or "the file alone", left_out, guesses


def _in_set(file: _File) -> bool:
    return bool(file.info and file.info.set_name)


def _whole_sets(files: Sequence[_File]) -> list[_File]:
    """Return the files of sets whose planes all have places of their own.

    Single images that Micro-Manager saved one by one say that each is the first: names tell them
    apart.
    """
    found: dict[str, list[_File]] = {}
    for file in files:
        found.setdefault(str(file.info and file.info.set_name), []).append(file)
    return [
        file
        for several in found.values()
        if len(places := _of_sets(several)) == len({plane.at[:4] for plane in places})
        for file in several
    ]


def _of_sets(files: Sequence[_File]) -> list[Plane]:
    """Return the planes of files whose metadata hold for the whole set."""
    infos = [file.info for file in files if file.info]
    sets = sorted({str(info.set_name) for info in infos})
    planes = []
    for info in infos:
        which: tuple[Label, ...] = (sets.index(str(info.set_name)),) if len(sets) > 1 else ()
        for number, at in info.planes:
            planes.append(Plane(info.path, number, at._replace(position=(*which, *at.position))))
    return planes


def _by_names(
    files: Sequence[_File], sidecars: Mapping[str, Coordinates], name_pattern: str | None
) -> tuple[list[Plane], list[str], Reading]:
    """Return the planes of files that tell of themselves alone; names tell them apart."""
    whole = [
        file.name for file in files if file.name in sidecars and _tells_place(sidecars[file.name])
    ]
    if len(whole) == len(files):
        reading = Reading({file.name: Coordinates() for file in files}, "")
    else:
        reading = _names_of(files, name_pattern)
    kept = [file for file in files if file.name in reading.coordinates]
    sibling = next((file.info for file in kept if file.info), None)
    planes = []
    for file in kept:
        info = file.info or sibling  # a damaged file is read later, and fails then by its name
        if info is None:
            raise Unclear("files that can be read", f"only damaged ones, such as {file.name}", HINT)
        beside = sidecars.get(file.name, Coordinates())
        outer = _first_told(beside, reading.coordinates[file.name])
        for number, at in info.planes:
            inner = at if file.info else at._replace(stage_um=None, z_um=None)
            planes.append(Plane(file.path, number, _merged(outer, inner, file)))
    told = [file.info.by for file in kept if file.info and file.info.by != "order"]
    names = [reading.by] if reading.by else []
    return planes, [*told, *names], reading


def _tells_place(at: Coordinates) -> bool:
    return at.z is not None


def _names_of(files: Sequence[_File], name_pattern: str | None) -> Reading:
    """Return what names tell, by whole name."""
    stems = {_stem(file.name): file.name for file in files}
    if len(stems) < len(files):  # the same image in two formats, or two images
        stems = {file.name: file.name for file in files}
    single = all(len(file.info.planes) == 1 for file in files if file.info)
    if len(files) == 1 and not name_pattern:
        return Reading({files[0].name: Coordinates()}, "")
    reading = read_names(list(stems), single_planes=single, name_pattern=name_pattern)
    by = f"names ({reading.by})"
    coordinates = {stems[stem]: at for stem, at in reading.coordinates.items()}
    left_out = tuple(stems[stem] for stem in reading.left_out)
    return reading._replace(coordinates=coordinates, by=by, left_out=left_out)


def _stem(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + Path(last).stem.removesuffix(".ome")


def _first_told(first: Coordinates, second: Coordinates) -> Coordinates:
    """Return coordinates of the first, completed by those of the second."""
    told = {axis: value for axis, value in first._asdict().items() if value not in (None, ())}
    return second._replace(**told)


def _merged(outer: Coordinates, inner: Coordinates, file: _File) -> Coordinates:
    """Return the place of a plane from that of its file and its own in the file."""
    for axis in ("z", "channel", "time"):
        if getattr(outer, axis) is not None and getattr(inner, axis) is not None:
            several = len({getattr(at, axis) for _, at in file.info.planes}) if file.info else 0
            if several > 1:
                got = f"{several} in {file.name}, whose name tells one, too"
                hint = "give name_pattern, which says what the names tell"
                raise Unclear(f"{axis} in names or in files", got, hint, file.path)
    merged = _first_told(outer, inner)
    return merged._replace(position=(*outer.position, *inner.position))
