"""The settings of a scan: frozen, validated once, unknown keys refused.

Every setting is a key of the TOML file given by ``--config``; all but those of a real microscope
are options of the command line, too. Any package may import this module, which imports none.
"""

import csv
import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from operator import lt
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

VERSION = "0.8.0"  # of the program


class SettingsError(ValueError):
    """Settings are wrong: one line with what was expected, what was got and what to do."""

    exit_code = 2


STEERED_DEFAULTS: dict[str, Any] = {
    "fields": 8,
    "planes": 15,
    "z_step_um": 1.0,  # less than half the depth of focus at NA 0.5
}
SIMULATED_DEFAULTS = STEERED_DEFAULTS | {
    "field_px": 512,
    "pixel_size_um": 0.325,  # 6.5 um camera pixels behind a 20x objective
}


SETTINGS_FILE = "scan.toml"  # in the run folder: the settings of the run, complete
OLD_NAMES = {"approach_um": "backlash_um"}  # still read, in settings files and in journals

MAX_FIELDS = 1_000_000  # a hundred slides at 20x; the plan of more takes minutes

FUNCTION = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"  # package.module:name
SCAN_PREDICTORS = rf"population|{FUNCTION}"
PREDICTORS = (
    r"classic|(onnx|bioimageio):\s*[^?\s\x00-\x1f][^?\x00-\x1f]*(\?maps=(boundary|distance))?"
    rf"|(?!classic:){FUNCTION}"
)


@dataclass(frozen=True)
class Group:
    """Title under which the help lists a setting."""

    title: str


@dataclass(frozen=True)
class Unit:
    """Unit or kind of a setting's value, as the help shows it."""

    name: str


class Rule(Enum):
    """How a setting may be given."""

    FILE_ONLY = "a key of the settings file, not an option: it is set once for an instrument"
    FREE_ON_RESUME = "may change on resume: it concerns the machine, not the answer"


IMAGES, INSTRUMENT, SLIDE = Group("images"), Group("real microscopes"), Group("slide and stage")
FOCUS, RESULTS, FAULTS = Group("focus"), Group("results"), Group("faults and stress")
RAY = Group("Ray")
UM, PX, MS, S, MB = (Unit(name) for name in ("UM", "PX", "MS", "S", "MB"))
NUMBER = Unit("N")
FILE_ONLY, FREE_ON_RESUME = Rule

MAX_FILE_BYTES = 10**6  # of settings
ESTIMATE = "estimate"  # a flat field, from the autofocus images


def _name_in_one_line(text: str) -> str:
    if not text.strip() or re.search(r"[\x00-\x1f\x7f-\x9f]", text):
        raise ValueError("a name in one line, not an empty one")
    return text


Line = Annotated[str, AfterValidator(_name_in_one_line)]


NAME_PARTS = (  # of the names of recorded files
    "row", "column", "col", "well", "region", "scene", "series", "position", "pos", "site", "field",
    "tile", "x", "y", "channel", "time", "z",
)  # fmt: skip


def _placeholders(text: str) -> str:
    """Refuse a name pattern without placeholders, with an unknown one, or with one twice."""
    given = re.findall(r"\{([^{}]*)\}", text)
    found = ["column" if part == "col" else part for part in given]
    if not found or set(given) - set(NAME_PARTS) or len(set(found)) < len(found):
        raise ValueError(f"each once of {', '.join(f'{{{part}}}' for part in NAME_PARTS)}")
    return text


NamePattern = Annotated[Line, AfterValidator(_placeholders)]

POINT_COLUMNS = ("x_um", "y_um", "z_um")  # of the heights that a user gives
MAX_POINTS = 500  # the fit takes seconds for more


def _read_points(given: Any) -> Any:
    """Return the heights of a CSV file, whose name is given; other values are checked later."""
    if not isinstance(given, str):
        return given
    columns = ", ".join(POINT_COLUMNS)
    if not is_file(Path(given)):
        raise ValueError(f"the name of a CSV file with the columns {columns}")
    try:
        lines = csv.DictReader(Path(given).read_text(encoding="utf-8-sig").splitlines())
        found = [tuple(float(line[name]) for name in POINT_COLUMNS) for line in lines]
    except (OSError, UnicodeError, KeyError, TypeError, ValueError, csv.Error):
        raise ValueError(f"a CSV file with a number in each of the columns {columns}") from None
    if not 0 < len(found) <= MAX_POINTS:
        raise ValueError(f"a CSV file with 1 to {MAX_POINTS} points ({len(found)} found)")
    return found


Coordinate = Annotated[float, Field(ge=-1e7, le=1e7)]
Points = Annotated[
    tuple[tuple[Coordinate, Coordinate, Coordinate], ...],
    BeforeValidator(_read_points),
    Field(min_length=1, max_length=MAX_POINTS),
]

Nodes = Annotated[str, Field(pattern=r"^[\w./-]+(=[\w./-]+)?$")]


class MicroscopeAt(BaseModel):
    """One of several microscopes: its configuration file, and which nodes have it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Line
    on: Nodes | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_file(cls, given: Any) -> Any:
        return {"config": given} if isinstance(given, str) else given


def _hex_colour(text: str) -> str:
    if not re.fullmatch("[0-9A-Fa-f]{6}", text):
        raise ValueError("six hex digits, such as 00FF00 for green")
    return text.upper()


HexColour = Annotated[str, AfterValidator(_hex_colour)]


class ChannelSettings(BaseModel):
    """One of several channels: how it is captured, and how it is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Line
    exposure_ms: Annotated[float, Field(gt=0, le=60_000)] | None = None
    preset: Line | None = None  # of Micro-Manager's channel group; by default the name
    z_offset_um: Annotated[float, Field(ge=-100, le=100)] = 0.0  # its focus above the reference's
    planes: Annotated[int, Field(ge=1, le=500)] | None = None
    reference: bool = False
    colour: HexColour | None = None


def _agreeing_channels(given: tuple[ChannelSettings, ...]) -> tuple[ChannelSettings, ...]:
    """Refuse channels of one name, several references, and a reference unlike the others."""
    names = [channel.name for channel in given]
    references = [channel for channel in given if channel.reference] or list(given[:1])
    if len(set(names)) < len(names):
        raise ValueError("channels of different names")
    if len(references) > 1:
        raise ValueError("one channel with reference = true")
    if any(channel.planes or channel.z_offset_um for channel in references):
        raise ValueError(
            "no planes and no z_offset_um of the reference, whose planes are those of the scan"
        )
    return given


Channels = Annotated[tuple[ChannelSettings, ...], AfterValidator(_agreeing_channels)]


class Settings(BaseModel):
    """All settings of a scan.

    A missing setting takes its default; missing geometry comes from the recording, or from the
    camera of a real microscope.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    microscope: Annotated[Literal["simulated", "replay", "micromanager"], IMAGES, Unit("NAME")] = (
        "simulated"
    )
    """simulated, replay or micromanager"""
    # Recordings and configurations may have moved since a run began: it is resumed if their pixels
    # and frames are the same.
    replay_path: Annotated[Line | None, IMAGES, Unit("PATH"), FREE_ON_RESUME] = None
    """recording to replay: image file, OME-Zarr or folder"""
    name_pattern: Annotated[NamePattern | None, IMAGES, Unit("TEXT"), FILE_ONLY] = None
    """what names of recorded files tell, such as pos{position}_z{z}, see docs/recordings.md"""
    channel: Annotated[NonNegativeInt | Line | None, IMAGES, Unit("NAME"), FILE_ONLY] = None
    """the only recorded channel to scan: its number from 0, or its name (default: all)"""
    channels: Annotated[Channels, IMAGES, Unit("TABLES"), FILE_ONLY] = Field((), max_length=16)
    """what is captured at each field, a table a channel, see docs/channels.md"""
    colour: Annotated[Literal["luminance", "channels"] | None, IMAGES, Unit("NAME"), FILE_ONLY] = (
        None
    )
    """luminance or channels: what is made of recorded colour images (default: luminance)"""
    layout: Annotated[Literal["raster", "snake"] | None, IMAGES, Unit("NAME"), FILE_ONLY] = None
    """raster or snake: recorded fields lie in their order (default: where the stage was)"""
    cameras: Annotated[PositiveInt | None, IMAGES, Unit("COUNT"), FILE_ONLY, FREE_ON_RESUME] = None
    """simulated cameras, or readers of a recording, that share stripes (default: one a stripe, but
    at most eight readers)"""
    check_recording: Annotated[bool, IMAGES, FILE_ONLY, FREE_ON_RESUME] = False
    """read a whole recording before the scan begins, and refuse it if a file is damaged"""
    mm_config: Annotated[Line | None, IMAGES, Unit("FILE"), FREE_ON_RESUME] = None
    """Micro-Manager's configuration file, on its computer"""
    microscopes: Annotated[
        tuple[MicroscopeAt, ...], INSTRUMENT, Unit("FILE"), FILE_ONLY, FREE_ON_RESUME
    ] = Field((), max_length=100)
    """several microscopes, as files or {config = FILE, on = NODES}; stripes go round-robin"""
    adapters: Annotated[Line | None, INSTRUMENT, Unit("DIR"), FILE_ONLY, FREE_ON_RESUME] = None
    """folder of Micro-Manager's device adapters (default: that of its configuration)"""
    binning: Annotated[int, INSTRUMENT, FILE_ONLY] = Field(1, ge=1, le=64)
    """binning factor of the camera"""
    roi_px: Annotated[
        tuple[NonNegativeInt, NonNegativeInt, PositiveInt, PositiveInt] | None,
        INSTRUMENT, PX, FILE_ONLY,
    ] = None  # fmt: skip
    """region of interest on the camera: x, y, width, height, after binning"""
    origin_um: Annotated[tuple[float, float], INSTRUMENT, UM, FILE_ONLY] = (0.0, 0.0)
    """stage position (x, y) of the mosaic's first pixel"""
    stage_limits_um: Annotated[
        tuple[float, float, float, float] | None, INSTRUMENT, UM, FILE_ONLY, FREE_ON_RESUME
    ] = None
    """stage limits: minimum x and y, maximum x and y"""
    focus_limits_um: Annotated[
        tuple[float, float] | None, INSTRUMENT, UM, FILE_ONLY, FREE_ON_RESUME
    ] = None
    """limits of the focus drive: minimum and maximum height"""
    backlash_um: Annotated[float, INSTRUMENT, UM, FILE_ONLY] = Field(0.0, ge=0, le=1000)
    """backlash compensation: moves down overshoot by this much and return"""
    device_timeout_s: Annotated[float, INSTRUMENT, S, FILE_ONLY, FREE_ON_RESUME] = Field(
        10.0, gt=0, le=3600
    )
    """timeout of a single device"""
    autofocus_offset: Annotated[float | None, INSTRUMENT, FILE_ONLY] = None
    """offset of the autofocus device, in its own unit (default: as it is)"""
    bursts: Annotated[bool, INSTRUMENT, FILE_ONLY, FREE_ON_RESUME] = True
    """whether hardware may sequence a z-stack"""
    seed: Annotated[int, IMAGES] = Field(1, ge=0)
    """seed of the simulated slide"""
    vignetting: Annotated[float, IMAGES, FILE_ONLY] = Field(0.0, ge=0, le=0.95)
    """light that simulated frames lack in their corners, as a fraction of that in their centre"""
    stage_error_um: Annotated[float, IMAGES, UM, FILE_ONLY] = Field(0.0, ge=0, le=1000)
    """how far the simulated stage misses its targets: standard deviation along x and along y"""
    stage_rotation_deg: Annotated[float, IMAGES, Unit("DEG"), FILE_ONLY] = Field(0.0, ge=-5, le=5)
    """by how much the simulated camera is turned against the stage"""
    stage_drift_um: Annotated[float, IMAGES, UM, FILE_ONLY] = Field(0.0, ge=-100, le=100)
    """how much farther the simulated stage is to the right from field to field"""
    # The files may have moved since a run began: it is resumed if their pixels are the same.
    flat_field: Annotated[Line | None, IMAGES, Unit("FILE"), FILE_ONLY, FREE_ON_RESUME] = None
    """how frames are lit: TIFF file without the dark, or estimate, from the autofocus images"""
    dark_field: Annotated[Line | None, IMAGES, Unit("FILE"), FILE_ONLY, FREE_ON_RESUME] = None
    """the camera's signal without light, in grey levels: TIFF file"""

    stripes: Annotated[int, SLIDE] = Field(3, ge=1, le=100)
    """stripes, one above the other"""
    fields: Annotated[int | None, SLIDE] = Field(None, ge=1)
    """fields of view per stripe"""
    planes: Annotated[int | None, SLIDE] = Field(None, ge=1, le=500)
    """planes per z-stack"""
    field_px: Annotated[int | None, SLIDE, PX] = Field(None, ge=64, le=8192)
    """edge length of a field"""
    overlap_px: Annotated[int | None, SLIDE, PX] = Field(None, ge=0)
    """minimum overlap of fields (default: a quarter)"""
    pixel_size_um: Annotated[float | None, SLIDE, UM] = Field(None, gt=0)
    """pixel size on the specimen"""
    z_step_um: Annotated[float | None, SLIDE, UM] = Field(None, gt=0)
    """distance between planes"""
    exposure_ms: Annotated[float, SLIDE, MS] = Field(20.0, gt=0, le=60_000)
    """exposure time of a plane"""
    settle_ms: Annotated[float, SLIDE, MS, FILE_ONLY] = Field(3.0, ge=0, le=60_000)
    """settling time after each stage move"""
    stage_speed_um_per_ms: Annotated[float, SLIDE, Unit("UM/MS")] = Field(10.0, ge=0.001)
    """speed of the xy stage"""

    focus: Annotated[Literal["surface", "none", "points", "hardware"], FOCUS, Unit("NAME")] = (
        "surface"
    )
    """surface, none, points or hardware"""
    focus_points: Annotated[Points | None, FOCUS, Unit("FILE"), FILE_ONLY] = None
    """known heights: a CSV file with the columns x_um, y_um, z_um, in stage positions"""
    focus_samples: Annotated[int, FOCUS] = Field(6, ge=1)
    """fields per stripe that autofocus samples"""
    focus_center_um: Annotated[float, FOCUS, UM] = 0.0
    """center of the first focus sweep"""
    focus_range_um: Annotated[float, FOCUS, UM] = Field(48.0, gt=0)
    """length of the first focus sweep"""

    align: Annotated[bool, RESULTS] = False
    """correct lateral drift between planes"""
    register_fields: Annotated[bool, RESULTS] = False
    """write fields where their overlaps show that they lie"""
    predictor: Annotated[str, RESULTS, Unit("SPEC")] = "classic"
    """detector, see docs/predictors.md"""
    scan_predictor: Annotated[str | None, RESULTS, Unit("FN"), FREE_ON_RESUME] = None
    """extends the whole table, see docs/predictors.md"""
    polarity: Annotated[Literal["auto", "bright", "dark"], RESULTS, Unit("NAME")] = "auto"
    """objects: auto, bright or dark"""
    diameter_um: Annotated[float | None, RESULTS, UM] = Field(None, gt=0, le=10_000)
    """typical object diameter; estimated if left out"""

    retries: Annotated[int, FAULTS, FREE_ON_RESUME] = Field(2, ge=0)
    """retries per field, of captures and tasks"""
    watchdog_s: Annotated[float, FAULTS, S, FREE_ON_RESUME] = Field(30.0, gt=0, le=86_400)
    """timeout of a camera without answer"""
    camera_start_s: Annotated[float, FAULTS, S, FILE_ONLY, FREE_ON_RESUME] = Field(
        60.0, gt=0, le=86_400
    )
    """timeout for a camera process to start or restart"""
    task_timeout_s: Annotated[float, FAULTS, S, FILE_ONLY, FREE_ON_RESUME] = Field(
        600.0, gt=0, le=86_400
    )
    """seconds after which a stacking or detection task counts as hung"""
    saturated_limit: Annotated[float, FAULTS, FILE_ONLY] = Field(0.5, gt=0, le=1)
    """saturated fraction of a plane allowed"""

    stress: Annotated[bool, FAULTS, FREE_ON_RESUME] = False
    """keep every CPU busy, to test the scan under load"""
    stress_seconds: Annotated[float, FAULTS, S, FREE_ON_RESUME] = Field(2.0, ge=0, le=3600)
    """time added to stacking a field then"""

    address: Annotated[Line | None, RAY, Unit("ADDR"), FREE_ON_RESUME] = None
    """Ray cluster to join; else a local Ray is started"""
    capture_on: Annotated[Nodes | None, RAY, Unit("NAME"), FILE_ONLY, FREE_ON_RESUME] = None
    """nodes that have cameras: a resource, or a label as in role=scope"""
    num_cpus: Annotated[int | None, RAY, FREE_ON_RESUME] = Field(None, ge=1)
    """CPUs of the local Ray (default: all)"""
    object_store_mb: Annotated[int, RAY, MB, FREE_ON_RESUME] = Field(1024, ge=80)
    """object store of the local Ray"""
    store_fraction: Annotated[float, RAY, FILE_ONLY, FREE_ON_RESUME] = Field(0.6, gt=0, le=0.8)
    """fraction of it that batches may fill"""

    @field_validator("predictor")
    @classmethod
    def _known_predictor(cls, spec: str) -> str:
        if not re.fullmatch(PREDICTORS, spec):
            raise ValueError("classic, onnx:FILE, bioimageio:FOLDER or package.module:factory")
        return spec

    @field_validator("scan_predictor")
    @classmethod
    def _known_scan_predictor(cls, spec: str | None) -> str | None:
        if spec is not None and not re.fullmatch(SCAN_PREDICTORS, spec):
            raise ValueError("population or package.module:function")
        return spec

    @model_validator(mode="before")
    @classmethod
    def _complete_geometry(cls, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("microscope") == "micromanager":  # the camera determines the rest
            return STEERED_DEFAULTS | {k: v for k, v in given.items() if v is not None}
        if given.get("microscope", "simulated") != "simulated":
            return given
        known = SIMULATED_DEFAULTS | {k: v for k, v in given.items() if v is not None}
        if str(known["field_px"]).isdecimal():  # anything else is refused later
            # two diameters of a usual nucleus at the usual field size
            known.setdefault("overlap_px", int(known["field_px"]) // 4)
        return known

    @property
    def configurations(self) -> tuple[str, ...]:
        """The configuration files of the Micro-Manager microscopes."""
        several = tuple(each.config for each in self.microscopes)
        return several or ((self.mm_config,) if self.mm_config else ())

    @property
    def camera_nodes(self) -> tuple[str | None, ...]:
        """For each of these microscopes the nodes that have it; None where it is not said."""
        several = tuple(each.on or self.capture_on for each in self.microscopes)
        return several or ((self.capture_on,) if self.mm_config else ())

    @model_validator(mode="after")
    def _have_a_source(self) -> Self:
        if self.mm_config and self.microscopes:
            raise ValueError("mm_config: expected that or microscopes, got both; leave one out")
        for kind, name, given in (
            ("replay", "replay_path", self.replay_path),
            ("micromanager", "mm_config", self.configurations),
        ):
            if self.microscope == kind and not given:
                raise ValueError(f"{name}: expected one for --microscope {kind}, got none; name it")
            if self.microscope != kind and given:
                raise ValueError(
                    f"{name}: expected only with --microscope {kind}, got {self.microscope}; "
                    "add the option"
                )
        for name in ("name_pattern", "channel", "colour", "layout", "check_recording"):
            given = getattr(self, name)
            if self.microscope != "replay" and given is not None and given is not False:
                raise ValueError(
                    f"{name}: expected only with --microscope replay, got {self.microscope}; "
                    "leave it out"
                )
        if self.microscope == "micromanager" and self.cameras:
            raise ValueError(
                f"cameras: expected none with --microscope micromanager, got {self.cameras}; each "
                "configuration is one"
            )
        return self

    @model_validator(mode="after")
    def _can_capture_channels(self) -> Self:
        """Refuse what of a channel the microscope has not, and one flat for several channels."""
        unknown = {"simulated": ["preset"], "replay": ["preset", "exposure_ms"]}
        for key in unknown.get(self.microscope, ()):
            if any(getattr(channel, key) is not None for channel in self.channels):
                raise ValueError(
                    f"channels: expected no {key} with --microscope {self.microscope}, got one; "
                    "leave it out"
                )
        if self.colour == "channels" and self.channel is not None:
            raise ValueError(
                f"channel: expected none with colour channels, got {self.channel}; name it in "
                "channels"
            )
        if self.channels and self.channel is not None:
            raise ValueError("channel: expected that or channels, got both; leave one out")
        if len(self.channels) > 1 and self.flat_field == ESTIMATE:
            raise ValueError(
                "flat_field: expected a file with several channels, as autofocus sees one of them "
                "alone, got estimate; give a TIFF with a flat for each"
            )
        return self

    @model_validator(mode="after")
    def _can_focus(self) -> Self:
        if self.focus != "surface" and self.microscope == "replay":
            raise ValueError(
                f"focus: expected surface with a recording, got {self.focus}; leave it out, its "
                "planes are used as they are"
            )
        if self.focus == "hardware" and self.microscope != "micromanager":
            raise ValueError(
                f"focus: expected hardware only with --microscope micromanager, got "
                f"{self.microscope}; choose another"
            )
        if self.focus == "points" and not self.focus_points:
            raise ValueError("focus_points: expected some with focus points, got none; name a file")
        if self.focus != "points" and self.focus_points:
            raise ValueError(
                f"focus_points: expected only with focus points, got {self.focus}; leave them out"
            )
        return self

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.microscope == "micromanager" and self.field_px:
            raise ValueError("field_px: expected none with a camera, got one; use roi_px, binning")
        if self.polarity != "auto" and self.predictor != "classic":
            raise ValueError(
                f"polarity: expected auto with the predictor {self.predictor}, got "
                f"{self.polarity}; models see the images as they are: leave it out"
            )
        if len(set(self.microscopes)) < len(self.microscopes):
            raise ValueError("microscopes: expected different ones, got one twice; remove it")
        stage, focus = self.stage_limits_um, self.focus_limits_um
        for name, limits in (("stage", stage), ("focus", focus)):
            half = len(limits) // 2 if limits else 0
            if limits and not all(map(lt, limits[:half], limits[half:])):
                expected = "minimum before maximum positions"
                raise ValueError(
                    f"{name}_limits_um: expected {expected}, got {list(limits)}; swap them"
                )
        if self.fields and self.stripes * self.fields > MAX_FIELDS:
            raise ValueError(
                f"fields: expected at most {MAX_FIELDS} in all stripes together, "
                f"got {self.stripes} x {self.fields}; scan the slide in parts"
            )
        if self.field_px and self.overlap_px and self.overlap_px > self.field_px // 2:
            raise ValueError(
                f"overlap_px: expected at most half of field_px ({self.field_px // 2}), "
                f"got {self.overlap_px}; make fields larger or the overlap smaller"
            )
        return self

    def to_toml(self) -> str:
        """Return the settings as TOML, which `read_toml` and `validate` turn into equal ones."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def marks(name: str) -> tuple[Group, Unit, frozenset[Rule]]:
    """Return the group, the unit and the rules of a setting, from the markers on its field."""
    found = Settings.model_fields[name].metadata
    group = next(mark for mark in found if isinstance(mark, Group))
    unit = next((mark for mark in found if isinstance(mark, Unit)), NUMBER)
    return group, unit, frozenset(mark for mark in found if isinstance(mark, Rule))


def marked(rule: Rule) -> set[str]:
    """Return the names of the settings to which a rule applies."""
    return {name for name in Settings.model_fields if rule in marks(name)[2]}


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of settings with the names of an earlier version replaced by today's."""
    return {OLD_NAMES.get(name, name): value for name, value in values.items()}


TABLES = ("channels", "microscopes")  # settings with keys of their own
KEY_FAULTS = {
    "extra_forbidden": "a known key, got an unknown one",
    "missing": "that key, got none",
}


def validate(values: Mapping[str, Any]) -> Settings:
    """Return the settings of plain values; unknown keys and wrong values raise SettingsError."""
    for old, new in OLD_NAMES.items():
        if {old, new} <= values.keys():
            raise SettingsError(f"{new}: expected to be given once, got {old}, too; leave that out")
    named = current_names(values)
    for key in named:
        if key not in Settings.model_fields:
            raise SettingsError(
                f"setting {key!r}: expected a known name, got an unknown one; {_nearest(key)}"
            )
    try:
        return Settings.model_validate(named)
    except ValidationError as error:
        raise SettingsError(_first_fault(error)) from None


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else "see docs/settings.md"


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    name, wanted = str(fault["loc"][0]), str(fault["msg"])
    if fault["loc"][0] in TABLES and len(fault["loc"]) > 2:
        name = "{}[{}].{}".format(*fault["loc"])
    if fault["type"] in KEY_FAULTS:
        return f"{name}: expected {KEY_FAULTS[fault['type']]}; see docs/settings.md"
    wanted = wanted.removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name}: expected {wanted}, got {fault['input']!r}; correct the setting"


def is_file(path: Path) -> bool:
    """Return whether a regular file is there: no pipe and no device, whose reading might not end.

    A name that no file can have, or a folder that may not be read, has none.
    """
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_toml(path: Path) -> dict[str, Any]:
    """Return the keys of a settings file; a missing or damaged file raises SettingsError."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            got = f"{status.st_size} bytes" if S_ISREG(status.st_mode) else "no regular file"
            raise OSError(None, got)
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        tomli_w.dumps(values)  # hex numbers of any length can be read, but not printed
        return values
    except OSError as error:
        raise SettingsError(
            f"{path}: expected a readable settings file, got {error.strerror}; check the path"
        ) from None
    except (ValueError, RecursionError) as error:  # numbers too long, nesting too deep
        raise SettingsError(f"{path}: expected TOML, got {error}; correct the file") from None


def resumed(folder: Path, named: str, values: Mapping[str, Any]) -> Settings:
    """Return the settings of an earlier run; values that would change its answer are refused.

    `folder` is on this computer; `named` is how the user wrote it.
    """
    if not is_file(folder / SETTINGS_FILE):
        raise SettingsError(
            f"--resume {named}: expected a run folder, got one without {SETTINGS_FILE}; name one "
            "that a run has left"
        )
    free, before = marked(FREE_ON_RESUME), validate(read_toml(folder / SETTINGS_FILE))
    now = validate(before.model_dump() | current_names(values))
    differing = [
        f"{name} ({getattr(before, name)!r}, now {getattr(now, name)!r})"
        for name in Settings.model_fields
        if name not in free and getattr(before, name) != getattr(now, name)
    ]
    if differing:
        raise SettingsError(
            f"--resume {named}: expected the settings of that run, got another "
            f"{', '.join(differing)}; leave them out, or scan into a new folder"
        )
    return now
