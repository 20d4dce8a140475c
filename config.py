"""The settings of a scan: frozen, validated once, unknown keys refused.

Every setting is a key of the TOML file given by ``--config``; all but those of a real microscope
are options of the command line, too. Any package may import this module, which imports none.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from operator import lt
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    BaseModel,
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
    """Settings cannot be used: one line that says what was expected, what came and what to do."""

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
# What may change when a run is resumed: the machine and its patience, not the answer. Recordings
# and configurations may have moved; they are compared by their pixels and by what frames are like.
FREE_ON_RESUME = {
    "replay_path",
    "mm_config",
    "microscopes",
    "adapters",
    "stage_limits_um",
    "focus_limits_um",
    "device_timeout_s",
    "bursts",
    "retries",
    "watchdog_s",
    "camera_start_s",
    "address",
    "capture_on",
    "num_cpus",
    "object_store_mb",
    "store_fraction",
    "stress",
    "stress_seconds",
}

# Of real microscopes and their clusters, set once: keys of the settings file, not options.
FILE_ONLY = {
    "microscopes",
    "adapters",
    "binning",
    "roi_px",
    "origin_um",
    "stage_limits_um",
    "focus_limits_um",
    "approach_um",
    "device_timeout_s",
    "bursts",
    "camera_start_s",
    "capture_on",
}

MOST_FIELDS = 1_000_000  # a hundred slides at 20x; the plan of more takes minutes

GROUPS = {  # titles in the help, each by the first setting that stands under it
    "microscope": "images",
    "stripes": "slide and stage",
    "focus_samples": "focus",
    "align": "results",
    "retries": "faults",
    "address": "Ray",
    "stress": "stress",
}
UNITS = ("UM", "MS", "PX", "S", "MB")
METAVARS = {
    "microscope": "NAME",
    "replay_path": "PATH",
    "mm_config": "FILE",
    "predictor": "SPEC",
    "address": "ADDR",
    "stage_speed_um_per_ms": "UM/MS",
    "stress_seconds": "S",
}
PREDICTORS = (
    r"classic|(onnx|bioimageio):[^?\x00-\x1f]+(\?maps=(boundary|distance))?"
    r"|(?!classic:)[A-Za-z_][\w.]*:[A-Za-z_]\w*"  # package.module:factory
)


Line = Annotated[str, Field(pattern=r"^\P{Cc}*$")]  # it is told of in one


class Settings(BaseModel):
    """All that decides a scan.

    A setting left out takes its default; geometry that is left out comes from the recording, or
    from the camera of a real microscope.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    microscope: Literal["simulated", "replay", "micromanager"] = "simulated"
    """simulated, replay or micromanager"""
    replay_path: Line | None = None
    """recording to replay: image file, OME-Zarr or folder"""
    mm_config: Line | None = None
    """configuration of Micro-Manager, on its computer"""
    microscopes: tuple[Line, ...] = Field((), max_length=100)
    """several configurations, each a microscope's: stripes are dealt to them"""
    adapters: Line | None = None
    """folder of Micro-Manager's device adapters (default: beside its configuration)"""
    binning: int = Field(1, ge=1, le=64)
    """camera pixels along either axis that make one"""
    roi_px: tuple[NonNegativeInt, NonNegativeInt, PositiveInt, PositiveInt] | None = None
    """part of the camera: x, y, width, height, after binning"""
    origin_um: tuple[float, float] = (0.0, 0.0)
    """where the stage stands, x and y, when it looks at the mosaic's first pixel"""
    stage_limits_um: tuple[float, float, float, float] | None = None
    """least x and y of the stage, greatest x and y"""
    focus_limits_um: tuple[float, float] | None = None
    """least and greatest height of the focus drive"""
    approach_um: float = Field(0.0, ge=0, le=1000)
    """against backlash: moves down go this much further and come back"""
    device_timeout_s: float = Field(10.0, gt=0, le=3600)
    """patience with a single device"""
    bursts: bool = True
    """whether hardware may sequence a z-stack"""
    seed: int = Field(1, ge=0)
    """seed of the simulated slide"""

    stripes: int = Field(3, ge=1, le=100)
    """stripes, one above the other"""
    fields: int | None = Field(None, ge=1)
    """fields of view per stripe"""
    planes: int | None = Field(None, ge=1, le=500)
    """planes per z-stack"""
    field_px: int | None = Field(None, ge=64, le=8192)
    """edge of a field"""
    overlap_px: int | None = Field(None, ge=0)
    """least overlap of fields (default: a quarter)"""
    pixel_size_um: float | None = Field(None, gt=0)
    """pixel edge on the specimen"""
    z_step_um: float | None = Field(None, gt=0)
    """distance of planes"""
    exposure_ms: float = Field(20.0, gt=0, le=60_000)
    """exposure of a plane"""
    settle_ms: float = Field(3.0, ge=0, le=60_000)
    """rest after each move of a stage"""
    stage_speed_um_per_ms: float = Field(10.0, ge=0.001)
    """speed of the x-y stage"""

    focus_samples: int = Field(6, ge=1)
    """fields per stripe that are focused on"""
    focus_center_um: float = 0.0
    """middle of the first focus sweep"""
    focus_range_um: float = Field(48.0, gt=0)
    """length of the first focus sweep"""

    align: bool = False
    """undo drift between planes"""
    predictor: str = "classic"
    """what finds the objects, see README"""
    diameter_um: float | None = Field(None, gt=0, le=10_000)
    """typical object diameter; estimated if left out"""

    retries: int = Field(2, ge=0)
    """captures of a field tried again"""
    watchdog_s: float = Field(30.0, gt=0, le=86_400)
    """patience with a camera that is silent"""
    camera_start_s: float = Field(60.0, gt=0, le=86_400)
    """patience with one that starts, or whose computer is gone"""
    saturated_limit: float = Field(0.5, gt=0, le=1)
    """part of a plane that may be saturated"""

    address: str | None = None
    """Ray cluster to join; else a local Ray is started"""
    capture_on: str | None = Field(None, pattern=r"^[\w./-]+(=[\w./-]+)?$")
    """nodes that have cameras: a resource, or a label as in role=scope"""
    num_cpus: int | None = Field(None, ge=1)
    """CPUs of the local Ray (default: all)"""
    object_store_mb: int = Field(1024, ge=80)
    """object store of the local Ray"""
    store_fraction: float = Field(0.6, gt=0, le=0.8)
    """part of it that batches may fill"""

    stress: bool = False
    """keep every CPU busy, to see what that does to the scan"""
    stress_seconds: float = Field(2.0, ge=0, le=3600)
    """added to the stacking of a field then"""

    @field_validator("predictor")
    @classmethod
    def _known_predictor(cls, spec: str) -> str:
        if not re.fullmatch(PREDICTORS, spec):
            raise ValueError("classic, onnx:FILE, bioimageio:FOLDER or package.module:factory")
        return spec

    @model_validator(mode="before")
    @classmethod
    def _complete_geometry(cls, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("microscope") == "micromanager":  # the rest is the camera's to say
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
        """The configuration files of the microscopes that Micro-Manager drives."""
        return self.microscopes or ((self.mm_config,) if self.mm_config else ())

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
        return self

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.microscope == "micromanager" and self.field_px:
            raise ValueError("field_px: expected to be the camera's, got one; use roi_px, binning")
        if len(set(self.microscopes)) < len(self.microscopes):
            raise ValueError("microscopes: expected different files, got one twice; leave it out")
        stage, focus = self.stage_limits_um, self.focus_limits_um
        for name, limits in (("stage", stage), ("focus", focus)):
            half = len(limits) // 2 if limits else 0
            if limits and not all(map(lt, limits[:half], limits[half:])):
                expected = "least before greatest positions"
                raise ValueError(
                    f"{name}_limits_um: expected {expected}, got {list(limits)}; turn them around"
                )
        if self.stripes * (self.fields or 1) > MOST_FIELDS:
            raise ValueError(
                f"fields: expected at most {MOST_FIELDS} in all stripes together, "
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


def validate(values: Mapping[str, Any]) -> Settings:
    """Settings from plain values; unknown keys and wrong values raise SettingsError."""
    for key in values:
        if key not in Settings.model_fields:
            raise SettingsError(
                f"setting {key!r}: expected a known name, got an unknown one; {_nearest(key)}"
            )
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError(_first_fault(error)) from None


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else "see README.md for the settings"


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    name = str(fault["loc"][0])
    wanted = str(fault["msg"])
    wanted = wanted.removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name}: expected {wanted}, got {fault['input']!r}; correct the setting"


def read_toml(path: Path) -> dict[str, Any]:
    """The keys of a settings file; a missing or damaged file raises SettingsError."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        tomli_w.dumps(values)  # numbers of any length can be read in hex, but not be shown
        return values
    except OSError as error:
        raise SettingsError(
            f"{path}: expected a readable settings file, got {error.strerror}; check the path"
        ) from None
    except (ValueError, RecursionError) as error:  # numbers too long, brackets too deep
        raise SettingsError(f"{path}: expected TOML, got {error}; correct the file") from None
