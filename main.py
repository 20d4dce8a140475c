"""Scan a slide in stripes on Ray.

python main.py                                          the simulated slide
python main.py --microscope replay --replay-path DIR    your own z-stacks
python main.py --help                                   all options

                     ┌──────── one per stripe ────────┐
find_z_positions ──► CaptureActor ──► batch ──► stack_batch ──► detect_objects ──► predict_scan
    (task)              (actor)    (ObjectRef)     (task)           (task)            (task)
"""

import time

PROCESS_BEGAN_S = time.time()  # before the imports: what a user waits for counts from here

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def refuse(told: str) -> None:
    """One line and exit code 2: nothing else of ours can be imported."""
    print(told, file=sys.stderr)
    sys.exit(2)


if sys.version_info < (3, 11):  # noqa: UP036  (whoever reads this line may have an older one)
    refuse(
        "Python: expected 3.11 or newer, got {}.{}.{}; make a virtual environment of a newer "
        "one, as in: python3.11 -m venv .venv".format(*sys.version_info)
    )
try:  # by the list: what is imported late would end a scan that has begun
    REQUIRED = Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8")
    for name in re.findall(r"^\w[\w.-]*", REQUIRED, re.MULTILINE):
        distribution(name)
except PackageNotFoundError as error:
    refuse(
        f"package {error.name}: expected to be installed, got none; "
        "python -m pip install -r requirements.txt"
    )

import json
import logging
import os
import shutil
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

# Read by the import of Ray: for how many seconds it tries to connect; and that failures are
# ours to tell, also those of frames whose record told it already.
os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "6")
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")

import ray
from ray.exceptions import (
    AuthenticationError,
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors import (
    CaptureActor,
    alive_nodes,
    await_nodes,
    beside_idle_heads,
    has_work,
    survey_microscope,
    where_cameras_live,
)
from config import FREE_ON_RESUME, SETTINGS_FILE, Settings, SettingsError, current_names, marked
from driver.command_line import parse
from imaging.ownership import label_dtype
from microscope.opening import Setup, prepare
from prediction import Predictor, statistics_from
from prediction.opening import open_predictor
from report.live import live_view
from report.progress import progress
from report.trace import write_trace
from results.files import write_atomically
from results.journal import JOURNAL, Journal, read_journal
from results.run_folder import choose_folder, run_lock, versions
from results.storage import location_of as place_of
from results.storage import storage_at
from results.store import create_mosaics, needed_bytes
from results.summary import Summary, format_summary, summarise, write_summary
from results.table import remove_parts
from results.verification import remove_temp_files, verify
from scan.cameras import CameraCare
from scan.checkpoint import Checkpoint as Past
from scan.checkpoint import per_stripe
from scan.credits import Credits, credits_for
from scan.errors import InputError, ScanError, StorageError, UserMistake
from scan.events import Begun, Detected, Lost, Stopping
from scan.events import parse as parse_event
from scan.focusing import FocusJob, FocusResult
from scan.ledger import QUEUED_PER_CAMERA, Ledger
from scan.pages import MOST_TOUCHED_BYTES
from scan.plan import Field
from scan.records import (
    AnswerRecord,
    CaptureRecord,
    DetectionJob,
    DetectionRecord,
    StackJob,
    StackRecord,
    WorkRecord,
)
from scan.stop import Stop
from scan.stress import burning
from scan.watchdog import allowed_s
from tasks import (
    WORK_NICENESS,
    describe_specimen,
    detect_objects,
    find_z_positions,
    predict_scan,
    stack_batch,
    try_place,
    warm_up,
)

Work = Callable[[Mapping[str, Any]], ray.ObjectRef]  # begins a task with further options of Ray's
NO_OPTIONS: Mapping[str, Any] = {}

COMPLETE, PARTIAL, FAILED, CANCELLED = "complete", "partial", "failed", "cancelled"
EXIT_CODES = {COMPLETE: 0, PARTIAL: 3, FAILED: 1, CANCELLED: 130}

LOOK_S = 1.0  # how often the loop looks up when nothing resolves: for hung cameras and for Ctrl-C
CONNECTING = (
    "check --address, that Ray has the same version there, and that both sides use one token "
    "(RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH)"
)
ANSWER_S = 4.0  # for whatever is at the address of a cluster
SILENCE_S = 300.0  # after which a scan says that it waits, and for what
MOST_TOLD = 400  # characters of a reason: there may be one for every field
PROBE_S = 60.0  # a node that has started no process yet takes some seconds
TELLING_S = 5.0  # for nodes to say how much they spilled
DOUBTED_S = 5.0  # after a node was lost: Ray has begun again by then what it knows to be lost
CLOSING_S = 5.0  # for cameras that still answer; nobody waits longer for those that do not


@dataclass
class Run:
    """One run: what is scanned, where the results go, and what earlier runs left there."""

    setup: Setup
    predictor: Predictor
    folder: Path
    past: Past
    journal: Journal
    credits: Credits
    stop: Stop
    camera_options: Mapping[str, Any]

    @property
    def place(self) -> str:
        """Where images and objects are written, which may be a URL."""
        return place_of(self.folder)


# ------------------------------------------------------------------------------------ the scan


def scan(run: Run) -> None:
    """The whole workflow, as in the figure; what happens is told to the journal."""
    setup, journal = run.setup, run.journal
    with stressed(setup.settings, journal), cameras(setup, run.camera_options) as actors:
        model = ray.put(run.predictor)
        warming = warm(actors, model, run)

        focus_job = setup.focus_job
        centres_um, samples = focus(actors, focus_job, run)
        z_um = {place: focus_job.planes_at(centre) for place, centre in centres_um.items()}
        statistics, described = describe(samples, model, run)

        flow = Flow(run, actors, z_um, model, statistics)
        flow.pending |= dict.fromkeys(warming, flow.warmed)
        for ref in described:
            flow.pending[ref], flow.anew[ref] = flow.described, partial(flow.describe, samples)
        flow.run_to_the_end()

    detected = sorted((field.stripe, field.field) for field in flow.ledger.detected)
    journal.write(event_of("predicted", **vars(flow.predict(detected))))
    if not flow.ledger.lost:
        remove_parts(run.place)


@contextmanager
def stressed(settings: Settings, journal: Journal) -> Iterator[None]:
    """Under --stress every core of this machine is kept busy; stacking burns on its own."""
    processes = (os.cpu_count() or 1) if settings.stress else 0
    if processes:
        journal.write(event_of("stressed", burners=processes, seconds=settings.stress_seconds))
    with burning(processes):
        yield


@contextmanager
def cameras(setup: Setup, options: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """A capture actor for each camera; in the end stages stop, microscopes close, processes end."""
    held = ray.put(setup)  # as long as there are cameras: one that is started anew needs it
    with compiled_code_silenced():  # it would warn that a large setup might not be held
        placed = CaptureActor.options(**options)
        actors = [placed.remote(held, camera) for camera in range(setup.plan.cameras)]
    try:
        yield actors
    finally:
        if ray_answers():
            closing = [actor.close.remote() for actor in actors]
            ray.wait(closing, num_returns=len(closing), timeout=CLOSING_S)
            for actor in actors:
                ray.kill(actor)


def warm(actors: Sequence[Any], model: ray.ObjectRef, run: Run) -> list[ray.ObjectRef]:
    """Have ready what the first batches need: memory to land in, imported and compiled workers."""
    batches = min(run.credits.total, 2 * QUEUED_PER_CAMERA * len(actors))
    size_bytes = min(batches * run.setup.batch_bytes, MOST_TOUCHED_BYTES)
    ready = [actor.ready.remote(model, size_bytes) for actor in actors]
    dtype = run.setup.dtype
    return [warm_up.remote(model, dtype, size_bytes, *ready) for _ in range(cpu_slots())]


def focus(
    actors: Sequence[Any], job: FocusJob, run: Run
) -> tuple[dict[tuple[int, int], float], ray.ObjectRef | None]:
    """The best height of every field, and images to learn from; a surface that is known stays."""
    past, journal = run.past, run.journal
    if past.focused and past.described:
        return past.centres_um, None
    result, samples = sweep(actors, job, journal)
    for sample in result.failed:
        camera = job.plan.camera_of(sample.stripe)
        journal.write(event_of("retried", step="focus", camera=camera, **vars(sample)))
    for camera in result.restarted:
        journal.write(event_of("restarted", camera=camera, reason="it failed during autofocus"))
    if past.focused:  # fields that are on disk were captured at those heights
        return past.centres_um, samples
    plan, dtype = run.setup.plan, run.setup.dtype
    create_mosaics(run.place, plan, dtype, label_dtype(plan.mosaic_shape))
    journal.write(result.to_event())
    return result.centres_um, samples


def sweep(
    actors: Sequence[Any], job: FocusJob, journal: Journal
) -> tuple[FocusResult, ray.ObjectRef]:
    """Autofocus; like a capture it is asked for again by us, and never by Ray."""
    retries = job.settings.retries
    while True:
        placed = find_z_positions.options(name="autofocus", label_selector=beside_idle_heads())
        found: Any = placed.remote(actors, job)
        while ray.wait(found, num_returns=len(found), timeout=LOOK_S)[1]:
            require_ray()
        try:
            result, samples = ray.get(found)
            return result, ray.put(samples)  # the node that focused may be lost
        except RayError as error:
            if not retries or not is_loss(error):
                raise
            retries -= 1
            journal.write(event_of("retried", step="focus", reason=reason_of(error)))


def describe(
    samples: ray.ObjectRef | None,
    model: ray.ObjectRef,
    run: Run,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> tuple[ray.ObjectRef, list[ray.ObjectRef]]:
    """By what every field is searched; and what to wait for, unless the journal knew it."""
    if samples is None:
        return ray.put(
            statistics_from(run.past.described.statistics if run.past.described else {})
        ), []
    describing: Any = describe_specimen.options(**options)
    statistics, work = describing.remote(samples, diameter_px(run.setup), model)
    return statistics, [work]


class Flow:
    """The one loop: a dict of pending references, each with what to do when it resolves."""

    def __init__(
        self,
        run: Run,
        actors: Sequence[Any],
        z_um: Mapping[tuple[int, int], tuple[float, ...]],
        predictor: ray.ObjectRef,
        statistics: ray.ObjectRef,
    ) -> None:
        self.run, self.setup, self.place, self.journal = run, run.setup, run.place, run.journal
        self.stop, self.actors, self.z_um = run.stop, actors, z_um
        self.predictor, self.statistics = predictor, statistics
        plan, settings = run.setup.plan, run.setup.settings
        self.ledger = Ledger(
            plan, run.credits, settings.retries, run.past.stacked, run.past.detected
        )
        self.pending: dict[ray.ObjectRef, Callable[[ray.ObjectRef], None]] = {}
        self.anew: dict[ray.ObjectRef, Work] = {}
        self.nodes: set[str] = set()
        self.gone: set[str] = set()
        self.away = NO_OPTIONS
        self.doubted: set[ray.ObjectRef] = set()
        self.exposures: dict[Field, ray.ObjectRef] = {}
        self.held_since_s: dict[int, float] = {}
        patience_s = allowed_s(settings, plan, run.setup.planes)
        self.care = CameraCare(self.ledger, patience_s, settings.camera_start_s)
        self.warned = False
        self.looked_s = self.moved_s = self.doubted_s = time.monotonic()

    def run_to_the_end(self) -> None:
        """Until every field is detected or lost: begin what may begin, then wait for anything.

        After a request to stop nothing begins, and what is under way is still brought home.
        """
        try:
            with self.stop.gently():
                self.detect_around(*self.ledger.stacked)
                for camera in range(len(self.actors)):
                    self.await_camera(camera, "")
                while not self.ledger.finished:
                    self.capture_more()
                    for ref in self.resolved():
                        self.anew.pop(ref, None)
                        self.pending.pop(ref)(ref)
                    self.look_around()
        finally:
            self.end_holds(set())
            self.withdraw()

    def resolved(self) -> list[ray.ObjectRef]:
        """Block until something resolves, then take all that has; nothing is fetched."""
        waiting = list(self.pending)
        if ray.wait(waiting, num_returns=1, timeout=LOOK_S, fetch_local=False)[0]:
            self.moved_s = time.monotonic()
        return ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)[0]

    def look_around(self) -> None:
        """Once a second: is Ray there, do all cameras answer, does anything happen at all?"""
        now_s = time.monotonic()
        if now_s - self.looked_s < LOOK_S:
            return
        self.looked_s = now_s
        require_ray()
        self.begin_again(now_s)
        self.end_hung_cameras(now_s)
        if now_s - self.moved_s > SILENCE_S:
            self.moved_s = now_s
            steps = {
                getattr(handler, "func", handler).__name__ for handler in self.pending.values()
            }
            message = (
                f"nothing has ended for {SILENCE_S:.0f} s; awaited: {', '.join(sorted(steps))}"
            )
            self.journal.write(event_of("warning", message=message))

    def begin(self, work: Work, then: Callable[[Any], None]) -> None:
        """Begin a task that may be begun again, and say what to do when it resolves.

        Once a node is gone Ray is told to keep off it: it may still await its answer to an earlier
        task of that kind, and tasks that ask for the same would wait in line behind that.
        """
        ref = work(self.away)
        self.pending[ref], self.anew[ref] = then, work

    def begin_again(self, now_s: float) -> None:
        """Tasks that were awaited when a node was lost, and still are, are begun again.

        Those of a node that died Ray repeats by itself; of one that fell silent it goes on awaiting
        answers, for minutes after it gave the node up.
        """
        if self.lost_node():
            self.doubted, self.doubted_s = set(self.anew), now_s
        if self.doubted and now_s - self.doubted_s > DOUBTED_S:
            again = [ref for ref in self.anew if ref in self.doubted]
            self.doubted = set()
            for ref in again:
                self.begin(self.anew.pop(ref), self.pending.pop(ref))
            if again:
                told = f"a node was lost; {len(again)} tasks that it may have had were begun again"
                self.journal.write(event_of("warning", message=told))

    def lost_node(self) -> bool:
        """Whether Ray gave up a node since the last time."""
        before, self.nodes = self.nodes, {node["NodeID"] for node in alive_nodes()}
        if lost := before - self.nodes:
            self.gone |= lost
            self.away = {"label_selector": beside_idle_heads(self.gone)}
        return bool(lost)

    def predict(self, detected: Sequence[tuple[int, int]]) -> AnswerRecord:
        """Make the scan's answer, again if a node is lost that may have been about to."""
        self.lost_node()
        while True:
            predicting = predict_scan.options(label_selector=beside_idle_heads(self.gone))
            ref = predicting.remote(self.place, detected)
            while not self.lost_node():
                if ray.wait([ref], timeout=LOOK_S)[0]:
                    return ray.get(ref)
                require_ray()

    def describe(self, samples: ray.ObjectRef | None, options: Mapping[str, Any]) -> ray.ObjectRef:
        """Describe the specimen again, for all detections that are begun from now on."""
        self.statistics, (work,) = describe(samples, self.predictor, self.run, options)
        return work

    def warmed(self, ref: ray.ObjectRef) -> None:
        """A worker has imported and compiled what it needs, unless the cameras never came."""
        try:
            self.journal.write(event_of("warmed", **vars(ray.get(ref))))
        except RayError as error:
            if not is_loss(error):
                raise

    def described(self, ref: ray.ObjectRef) -> None:
        """It is known by what every field will be searched."""
        try:
            work = ray.get(ref)
        except RayError as error:
            if not is_loss(error):
                raise
            advice = "resume the run, which sweeps once more"
            raise ScanError("autofocus", "its images to last", reason_of(error), advice) from error
        self.journal.write(event_of("described", **vars(ray.get(self.statistics)), **vars(work)))

    # -------------------------------------------------------------------------- captures

    def capture_more(self) -> None:
        """Ask for what there is room for; a camera that must stand still for want of it is held."""
        if self.stop.asked:
            self.come_home()
            return
        for field in self.ledger.captures_to_begin():
            self.capture(field)
        held = self.ledger.held_cameras()
        self.end_holds(held)
        self.held_since_s |= dict.fromkeys(held - self.held_since_s.keys(), time.time())

    def end_holds(self, held: set[int]) -> None:
        """Tell of the cameras that stood still and are not held any more."""
        for camera in self.held_since_s.keys() - held:
            began_s = self.held_since_s.pop(camera)
            self.journal.write(
                event_of("held", camera=camera, began_s=began_s, ended_s=time.time())
            )

    def come_home(self) -> None:
        """Nothing begins any more; once nothing is under way the run is interrupted."""
        if not self.journal.seen(Stopping):
            self.journal.write(event_of("stopping"))
            self.withdraw()
        if not self.ledger.under_way:
            raise KeyboardInterrupt

    def withdraw(self) -> None:
        """Take back the captures that no camera has begun."""
        for field in self.ledger.in_queues() if ray_answers() else ():
            ray.cancel(self.exposures[field])

    def capture(self, field: Field) -> None:
        """Ask the field's camera for a batch: a small record to wait for, frames to pass on."""
        z_um = self.z_um[field.stripe, field.field]
        camera = self.camera_of(field)
        capture = self.actors[camera].capture
        record, frames = capture.options(name=f"capture {field.name}").remote(field, z_um)
        self.exposures[field] = record
        self.pending[record] = partial(self.captured, field, frames)
        if self.ledger.under_exposure(camera) == field:
            self.expect(camera)

    def camera_of(self, field: Field) -> int:
        """Which camera takes the field."""
        return self.setup.plan.camera_of(field.stripe)

    def captured(self, field: Field, frames: ray.ObjectRef, ref: ray.ObjectRef) -> None:
        """A batch resolved: stack it this moment."""
        del self.exposures[field]
        try:
            record: CaptureRecord = ray.get(ref)
        except RayError as error:
            self.not_captured(field, error)
            return
        self.ledger.was_captured(field)
        self.expect(self.camera_of(field))
        self.check_priority(record.niceness)
        self.care.answered(self.camera_of(field))
        settings = self.setup.settings
        burn_s = settings.stress_seconds if settings.stress else 0.0
        job = StackJob(self.place, field, record.z_um, settings.align, burn_s)
        self.begin(partial(self.stack, job, frames), partial(self.stacked, record, field))
        self.tell(
            "captured",
            field,
            began_s=record.began_s,
            ended_s=record.ended_s,
            slips_ms=[round(slip, 3) for slip in record.slips_ms],
            process=record.process,
            in_flight=self.ledger.credits.taken,
        )

    def check_priority(self, niceness: int) -> None:
        """Tell once if cameras do not come before stacking; whoever started Ray decides that."""
        if niceness >= WORK_NICENESS and not self.warned:
            self.warned = True
            advice = "start Ray with RAY_worker_niceness=0, or exposures wait for stacking"
            message = f"cameras run at niceness {niceness}; {advice}"
            self.journal.write(event_of("warning", message=message))

    def not_captured(self, field: Field, error: RayError) -> None:
        """A batch did not come. When a camera dies, only what it was exposing has failed."""
        reason, begun = reason_of(error), not isinstance(error, TaskCancelledError)
        camera = self.camera_of(field)
        if isinstance(error, RayActorError):
            self.await_camera(camera, reason)
            victim, reason = self.care.felled(camera)
            begun = victim == field
        self.ledger.was_captured(field)
        self.expect(camera)
        if begun:
            self.failed("capture", field, reason)
        else:
            self.ledger.put_back(field)

    def failed(self, step: str, field: Field, reason: str) -> None:
        """A batch did not come, or vanished: it will be captured again, or its field is lost."""
        if self.stop.asked:
            self.ledger.put_back(field)
        elif self.ledger.failed(field, reason):
            self.tell("retried", field, step=step, reason=reason)
        else:
            self.lost(reason, field)

    def lost(self, reason: str, *fields: Field) -> None:
        """Fields will not be in the answer; their neighbours need not wait for them."""
        for field in fields:
            self.tell("lost", field, reason=reason)
        self.detect_around(*fields)

    # --------------------------------------------------------------------------- cameras

    def expect(self, camera: int) -> None:
        """If the camera has something to do, it must answer in time."""
        self.care.expect(camera, time.monotonic())

    def end_hung_cameras(self, now_s: float) -> None:
        """End the process of a camera that is silent for too long; a new one takes its place."""
        for camera, for_good in self.care.silent(now_s):
            ray.kill(self.actors[camera], no_restart=for_good)

    def await_camera(self, camera: int, reason: str) -> None:
        """Ask nothing of a camera until its actor has started, for that reason anew."""
        if self.care.starts(camera, reason, time.monotonic()):
            self.pending[self.actors[camera].ready.remote()] = partial(self.revived, camera)

    def revived(self, camera: int, ref: ray.ObjectRef) -> None:
        """The actor lives again; or never will, and what waits for it is lost."""
        try:
            ray.get(ref)
        except RayError as error:
            reason = self.care.started(camera, str(error).strip().splitlines()[-1])
            self.lost(reason, *self.ledger.abandon(camera, reason))
            return
        if reason := self.care.started(camera):
            self.journal.write(event_of("restarted", camera=camera, reason=reason))

    # ---------------------------------------------------------------- stacking, detection

    def stack(
        self, job: StackJob, frames: ray.ObjectRef, options: Mapping[str, Any]
    ) -> ray.ObjectRef:
        """Ask for a batch to be stacked."""
        stacking = stack_batch.options(name=f"stack {job.field.name}", **options)
        return stacking.remote(job, frames)

    def stacked(self, record: CaptureRecord, field: Field, ref: ray.ObjectRef) -> None:
        """A field lies in the mosaic: search every field whose surroundings are complete now."""
        try:
            stack: StackRecord = ray.get(ref)
        except RayError as error:
            if not is_loss(error):
                raise
            self.failed("stack", field, reason_of(error))
            return
        self.ledger.was_stacked(field)
        self.detect_around(field)
        self.tell_repeats("stack", field, stack.work)
        self.tell(
            "stacked",
            field,
            asked_s=record.complete_s,
            in_flight=self.ledger.credits.taken,
            checksums=stack.checksums,
            **vars(stack.work),
        )

    def detect_around(self, *settled: Field) -> None:
        """Search the fields that waited for these alone, unless the run is to stop."""
        plan = self.setup.plan
        for place in settled if not self.stop.asked else ():
            for field in self.ledger.detections_to_begin(place):
                around = plan.surroundings(field)
                job = DetectionJob(self.place, field, around, plan.pixel_size_um)
                self.begin(partial(self.search, job), partial(self.detected, time.time(), field))

    def search(self, job: DetectionJob, options: Mapping[str, Any]) -> ray.ObjectRef:
        """Find the objects of a field, as it is known by now what they look like."""
        searching = detect_objects.options(name=f"detect {job.field.name}", **options)
        return searching.remote(job, self.predictor, self.statistics)

    def detected(self, asked_s: float, field: Field, ref: ray.ObjectRef) -> None:
        """The objects of a field lie on disk."""
        try:
            found: DetectionRecord = ray.get(ref)
        except RayError as error:
            cause = cause_of(error)
            if isinstance(cause, StorageError) or not (
                is_loss(error) or isinstance(cause, ScanError)
            ):
                raise
            self.ledger.was_not_detected(field, reason_of(error))
            self.tell("lost", field, reason=reason_of(error))
            return
        self.ledger.was_detected(field)
        self.tell_repeats("detect", field, found.work)
        facts = {"objects": found.objects, "checksums": found.checksums, **vars(found.work)}
        self.tell("detected", field, asked_s=asked_s, **facts)

    def tell_repeats(self, step: str, field: Field, work: WorkRecord) -> None:
        """A line for every time that Ray ran a task again."""
        for _ in range(work.repeats):
            self.tell("retried", field, step=step, reason="its worker died")

    def tell(self, event: str, field: Field, **facts: Any) -> None:
        """One line of the journal about a field."""
        place = {"stripe": field.stripe, "field": field.field, "camera": self.camera_of(field)}
        self.journal.write(event_of(event, **place, **facts))


def event_of(kind: str, /, **facts: Any) -> Any:
    """The event of a kind with these facts."""
    return parse_event(json.dumps({"event": kind, **facts}))


def cause_of(error: BaseException) -> BaseException:
    """What a remote function raised, or the failure of Ray itself."""
    return error.cause if isinstance(error, RayTaskError) else error


def is_loss(error: RayError) -> bool:
    """Whether a task failed because its batch or its worker is gone, not by a fault of its own."""
    lost = isinstance(cause_of(error), (ObjectLostError, RayActorError))
    return lost or not isinstance(error, RayTaskError)


def reason_of(error: RayError) -> str:
    """Why something failed, in one line."""
    cause = cause_of(error)
    if isinstance(cause, RayActorError):
        return "the process of the camera died"
    if isinstance(cause, ObjectLostError):
        return "the images were lost with the node that held them"
    first = (str(cause).strip().splitlines() or [""])[0][:MOST_TOLD]
    return first if isinstance(cause, ScanError) else f"{type(cause).__name__}: {first}"


# ------------------------------------------------------------------------------- Ray around it


@contextmanager
def ray_running(settings: Settings) -> Iterator[None]:
    """Join the cluster that is asked for, or start a local Ray; one that runs already is used."""
    if ray.is_initialized():
        yield
        return
    address = asked_address(settings)
    try:
        start_ray(address, settings)
        silence_ray()
    except (OSError, ValueError, RuntimeError, AuthenticationError) as error:
        came = " ".join(str(error).split())[:200] or type(error).__name__
        subject = f"Ray at {address}" if address else "local Ray"
        advice = CONNECTING if address else "check object_store_mb and num_cpus"
        raise UserMistake(subject, "a Ray that answers", came, advice) from None
    try:
        yield
    finally:
        ray.shutdown()


def asked_address(settings: Settings) -> str | None:
    """The cluster to join, if one is asked for."""
    return settings.address or os.environ.get("RAY_ADDRESS")


def start_ray(address: str | None, settings: Settings) -> None:
    """Join a cluster or start a local Ray; its size is ours to say only in the latter case."""
    os.environ.setdefault("RAY_worker_niceness", "0")  # cameras at 0, stacking lowers itself
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # nothing here needs a GPU
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "3600000")  # warm ones
    # Ray would keep counters of every task's name for ever, and the records of 100,000 tasks.
    os.environ.setdefault("RAY_enable_metrics_collection", "false")
    os.environ.setdefault("RAY_task_events_max_num_task_in_gcs", "10000")
    # Whoever stops us may stop Ray, too; it would try for 5 s to get rid of its last records.
    os.environ.setdefault("RAY_task_events_shutdown_flush_timeout_ms", "500")
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not address:
        store_bytes = settings.object_store_mb * 10**6
        require_shared_memory(store_bytes)
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=settings.num_cpus,
            object_store_memory=store_bytes,
            **common,
        )
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        require_grpc(host, int(port))
    with compiled_code_silenced():  # one message of ours says it all
        ray.init(address=address, **common)


def silence_ray() -> None:
    """Keep off the screen what Ray says of nodes and tasks that failed, its own stack traces too:
    what it means for the scan is ours to tell."""
    with suppress(ImportError):  # no public setting does it: log_to_driver concerns workers alone
        from ray._private import worker

        worker.print_to_stdstream = lambda *told, **more: None


def require_shared_memory(needed_bytes: int) -> None:
    """Raise UserMistake where Ray would keep batches in files on disk, and not say so."""
    memory, allowed = Path("/dev/shm"), "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE"
    if sys.platform != "linux" or not memory.is_dir() or os.environ.get(allowed):
        return
    free_bytes = shutil.disk_usage(memory).free
    if free_bytes < needed_bytes:
        expected = f"{needed_bytes // 10**6} MB free for batches"
        advice = (
            f"start the container with --shm-size={needed_bytes * 11 // 10**7}m, give a smaller "
            f"--object-store-mb (at least 80), or set {allowed}=1 to use slow files"
        )
        raise UserMistake(str(memory), expected, f"{free_bytes // 10**6} MB", advice)


@contextmanager
def compiled_code_silenced() -> Iterator[None]:
    """Keep off the screen what is written to it past Python."""
    screen = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)


def require_grpc(host: str, port: int) -> None:
    """Raise OSError unless HTTP/2 is spoken there, as Ray does; Ray itself tries for minutes."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    with socket.create_connection((host, port), timeout=ANSWER_S) as connection:
        connection.sendall(preface)
        if connection.recv(9)[3:4] != b"\4":  # RFC 9113, 3.4: the answer begins with SETTINGS
            raise OSError("an answer that is not Ray's")


def require_ray() -> None:
    """Raise ScanError if Ray's head is gone; Ray itself would wait for a minute and end us then."""
    if not ray_answers():
        raise ScanError("Ray", "its head to answer", "nothing", "see its logs, and resume the run")


def ray_answers() -> bool:
    """Whether Ray's head is there; whoever ended us may have ended it, and calls would hang."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def ray_beside() -> str | None:
    """The address of another Ray that `ray start` left on this machine, if it answers."""
    try:  # the file to which `ray start` writes it is told by a private function alone
        from ray._private.utils import read_ray_address

        address = read_ray_address() or ""
        host, _, port = address.rpartition(":")
        require_grpc(host, int(port))
    except (ImportError, OSError, ValueError):
        return None
    return None if address == ray.get_runtime_context().gcs_address else address


def require_shared(folder: Path) -> None:
    """Raise UserMistake unless every node reads and writes the folder that the driver does."""
    nodes, place = alive_nodes(), place_of(folder)
    if len(nodes) == 1 and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return
    storage = storage_at(place)
    storage.check_same_on_all_nodes()
    storage.write_probe()
    try:
        # All at once: each may have to start a process.
        asked = [ask(place, node) for node in nodes]
        answers = zip(nodes, asked, strict=True)
        strangers = [told for node, ref in answers if (told := estranged(place, node, ref))]
    finally:
        storage.remove_probes([node["NodeID"] for node in nodes])
    if strangers:
        expected = f"one folder on all {len(nodes)} nodes"
        advice = storage.sharing_hint
        came = "; ".join(dict.fromkeys(strangers))[:MOST_TOLD]
        raise UserMistake(place, expected, came, advice)


def ask(place: str, node: Mapping[str, Any]) -> ray.ObjectRef:
    """Have a node try the place of the results."""
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return try_place.options(scheduling_strategy=there).remote(place, node["NodeID"])


def estranged(place: str, node: Mapping[str, Any], asked: ray.ObjectRef) -> str:
    """Why a node does not share the place of the results; empty if it does."""
    where = f"on {node['NodeManagerHostname']}"
    try:
        seen = ray.get(asked, timeout=PROBE_S)
    except RayError as error:
        return f"{reason_of(error)} {where}"
    if seen and storage_at(place).probe_answered(node["NodeID"]):
        return ""
    return f"another one {where} ({node['NodeManagerAddress']})"


def cpu_slots() -> int:
    """CPU slots for stacking and detection in the whole cluster."""
    return int(ray.cluster_resources().get("CPU", 0))


def store_bytes() -> int:
    """Size of the smallest object store of the nodes that batches lie in."""
    sizes = (
        node["Resources"].get("object_store_memory") for node in alive_nodes() if has_work(node)
    )
    return int(min(filter(None, sizes), default=0))


def spilled_mb() -> float | None:
    """Megabytes that Ray spilled to disk; None where this Ray does not tell."""
    try:  # the only source that needs no dashboard process is a private one
        from ray._private import internal_api

        state = internal_api.get_state_from_address(ray.get_runtime_context().gcs_address)
        told = internal_api.get_memory_info_reply(state, timeout_seconds=TELLING_S)
        return round(told.store_stats.spilled_bytes_total / 1e6, 3)
    except Exception:  # all nodes are asked, and one of them may be gone; gRPC's errors are its own
        return None


def ray_events(stop: Stop) -> list[dict[str, Any]]:
    """What Ray tells of its tasks; nothing where it does not. For a second it awaits reports."""
    if stop.asked or not ray_answers():
        return []
    with suppress(RayError, RuntimeError, OSError, ValueError, LookupError):
        return list(ray.timeline())
    return []


# ------------------------------------------------------------------------------ a run around it


def credits_of(setup: Setup) -> Credits:
    """Credits for this scan on this Ray."""
    return credits_for(
        store_bytes(), setup.settings.store_fraction, setup.batch_bytes, setup.plan.cameras
    )


def diameter_px(setup: Setup) -> float | None:
    """The object diameter that the settings give, in pixels."""
    given_um = setup.settings.diameter_um
    return given_um / setup.plan.pixel_size_um if given_um else None


def prepared(settings: Settings) -> Setup:
    """What the microscopes will deliver; real ones are asked, where they stand."""
    if not settings.configurations:
        return prepare(settings)
    settings = located(settings)
    there = survey_microscope.options(**where_cameras_live(settings))
    asked = [there.remote(settings, camera) for camera in range(len(settings.configurations))]
    setups = [surveyed(ref, settings) for ref in asked]
    for name, other in zip(settings.configurations, setups, strict=True):
        if frames_of(other) != frames_of(setups[0]):
            expected, advice = frames_of(setups[0]), "set both to the same binning, ROI and type"
            raise InputError(name, f"{expected} as of the first", frames_of(other), advice)
    return setups[0]


def located(settings: Settings) -> Settings:
    """Configuration files of this computer by their whole paths, for actors may stand elsewhere."""
    paths = [Path(name) for name in settings.configurations]
    whole = [str(path.resolve() if path.exists() else path) for path in paths]
    several = bool(settings.microscopes)
    return settings.model_copy(
        update={"microscopes": tuple(whole)} if several else {"mm_config": whole[0]}
    )


def surveyed(asked: ray.ObjectRef, settings: Settings) -> Setup:
    """What a microscope said of itself; ScanError if it did not."""
    try:
        return ray.get(asked, timeout=settings.camera_start_s)
    except GetTimeoutError:
        came = f"none within {settings.camera_start_s:g} s"
    except RayError as error:
        if isinstance(cause_of(error), ScanError):
            raise cause_of(error) from None
        came = reason_of(error)
    raise ScanError("microscope", "an answer", came, "try it in Micro-Manager itself")


def frames_of(setup: Setup) -> str:
    """What the frames are like."""
    rows, columns = setup.plan.frame_shape
    return f"{rows} x {columns} pixels of {setup.dtype}, {setup.plan.pixel_size_um:g} um wide"


def perform(setup: Setup, predictor: Predictor, folder: Path, plain: bool) -> Summary:
    """Scan into a folder, or go on where a run stopped; leave a summary."""
    past = recall(setup, predictor, folder)
    if past.complete:  # whoever ended it may not have come to these
        remove_parts(place_of(folder))
        leave_report(folder)
        return leave_summary(folder)
    needed = needed_bytes(setup.plan, setup.dtype, len(past.stacked))
    storage_at(place_of(folder)).check_disk_space(needed)
    stop = Stop()
    with progress(plain) as show, ray_running(setup.settings), stop.heeded():
        up_s = time.time()
        require_shared(folder)
        await_nodes("CPU for stacking", 1, cpu_slots, "start Ray on a computer that has some")
        credits, options = credits_of(setup), where_cameras_live(setup.settings)
        folder = folder.resolve()
        if not (folder / SETTINGS_FILE).exists():
            write_atomically(folder / SETTINGS_FILE, setup.settings.to_toml())
        with Journal(folder / JOURNAL, show) as journal:
            run = Run(setup, predictor, folder, past, journal, credits, stop, options)
            begin(run, up_s)
            status = guarded_scan(run)
            journal.write(
                event_of(
                    "finished",
                    status=status,
                    peak_batches_in_flight=credits.peak,
                    spilled_mb=spilled_mb() if ray_answers() else None,
                    driver_cpu_s=round(time.process_time(), 3),
                )
            )
        summary = leave_summary(folder)  # before Ray is shut down, which takes its time
        leave_views(folder, stop)
        return summary


def leave_summary(folder: Path) -> Summary:
    """The summary of a run folder, from its journal; written beside the results."""
    summary = summarise(read_journal(folder / JOURNAL))
    try:
        write_summary(folder, summary)
    except StorageError:
        if summary["status"] != FAILED:  # else it was told why
            raise
    return summary


def leave_report(folder: Path) -> Path:
    """The report of a run folder, from what lies in it; written beside the results."""
    from report.report import write_report  # half a second that the first exposure need not wait

    return write_report(folder)


def leave_views(folder: Path, stop: Stop) -> None:
    """What people look at, report and trace; the results are there, and nothing fails by these."""
    with stop.gently(), ThreadPoolExecutor() as waiting:
        told = waiting.submit(ray_events, stop)
        for leave in (leave_report, lambda folder: write_trace(folder, told.result())):
            try:
                leave(folder)
            except (ScanError, OSError):
                pass  # a disk that fails has been told of
            except Exception as error:
                print(f"no report or no trace: {error}", file=sys.stderr)


def recall(setup: Setup, predictor: Predictor, folder: Path) -> Past:
    """What earlier runs left in a folder: mended, read again, and compared with what comes now."""
    events = read_journal(folder / JOURNAL)
    begun = next((current_names(e.identity) for e in events if isinstance(e, Begun)), None)
    for name, now in identity(setup, predictor).items():
        if begun and begun.get(name) != now:
            subject, advice = f"--resume {place_of(folder)}", "bring that back, or use a new folder"
            expected, came = f"{name} {begun.get(name)} as begun", str(now)
            if name not in begun:
                expected, came = "a run of this program", "one of another version"
            raise InputError(subject, expected, came, advice)
    remove_temp_files(folder)
    past, place = Past.of(events, setup.plan), place_of(folder)
    if past.focused:
        print(f"reading back {len(past.stacked)} fields of {len(setup.plan.fields)}")
        mosaic = setup.plan.mosaic_shape
        create_mosaics(place, setup.plan, setup.dtype, label_dtype(mosaic))
        verify(place, past)
    return past


def identity(setup: Setup, predictor: Predictor) -> dict[str, Any]:
    """What decides the answer: the settings, the pixels of a recording, the model."""
    settings = setup.settings.model_dump(mode="json", exclude=marked(FREE_ON_RESUME))
    source = setup.recording.checksum if setup.recording else frames_of(setup)
    return {"input": source, **settings, **predictor.told()}


def begin(run: Run, up_s: float) -> None:
    """The first lines of the journal: what is planned, on what, and what is there already."""
    setup, journal, past = run.setup, run.journal, run.past
    counts = [len(stripe) for stripe in setup.plan.stripes]
    rows, columns = setup.plan.mosaic_shape
    found = versions()
    journal.write(
        event_of(
            "begun",
            process_began_s=PROCESS_BEGAN_S,
            stripes=counts,
            layout=f"{len(counts)} stripes of {counts[0]} fields, {rows} x {columns} pixels",
            fields=len(setup.plan.fields),
            **setup.plan.told(),
            versions=found,
            identity=identity(setup, run.predictor),
        )
    )
    journal.write(
        event_of(
            "ray",
            up_s=up_s,
            cpus=cpu_slots(),
            object_store_bytes=store_bytes(),
            batch_bytes=setup.batch_bytes,
            credits=run.credits.total,
        )
    )
    if past.begun:
        journal.write(
            event_of(
                "resumed",
                stacked=per_stripe(past.stacked, setup.plan),
                detected=per_stripe(past.detected, setup.plan),
            )
        )
    before = past.begun.versions if past.begun else found
    changed = [f"{k} {before.get(k)}, now {v}" for k, v in found.items() if before.get(k) != v]
    warnings = [*setup.warnings, *(f"the run was begun with {each}" for each in changed)]
    if not asked_address(setup.settings) and (other := ray_beside()):
        warnings.append(f"another Ray runs here at {other}; --address {other} joins it")
    for warning in warnings:
        journal.write(event_of("warning", message=warning))


def guarded_scan(run: Run) -> str:
    """Scan; whatever happens becomes a status and a line of the journal."""
    try:
        scan(run)
    except KeyboardInterrupt:
        return CANCELLED
    except Exception as error:
        if run.stop.asked:  # whoever stopped us may have stopped Ray, too
            return CANCELLED
        cause = cause_of(error)
        if isinstance(cause, ScanError):
            print(cause, file=sys.stderr)
        else:
            traceback.print_exception(error)
        with suppress(StorageError):  # a full disk has been told
            run.journal.write(event_of("failed", reason=str(cause).strip()[:MOST_TOLD]))
        return FAILED
    if not (run.past.detected or run.journal.seen(Detected)):
        return FAILED
    return PARTIAL if run.journal.seen(Lost) else COMPLETE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    try:
        with ExitStack() as around:
            call = parse(
                sys.argv[1:] if argv is None else argv,
                lambda place: around.enter_context(storage_at(place).local_folder()),
            )
            if call.report:
                leave_report(call.report)
                print(f"{place_of(call.report)}/report.html")
                return EXIT_CODES[COMPLETE]
            if call.settings.configurations:  # their microscopes can be asked on Ray alone
                around.enter_context(ray_running(call.settings))
            setup = prepared(call.settings)
            folder = call.resume or choose_folder(call.out)
            place = place_of(folder)
            predictor = open_predictor(call.settings.predictor, setup.dtype)
            with run_lock(folder), live_view(folder.resolve(), call.live):
                summary = perform(setup, predictor, folder, call.plain)
            print(*format_summary(summary), sep="\n")
            if summary["status"] != COMPLETE:
                print(f"to go on from here: python main.py --resume {place}")
            print(place)
    except (SettingsError, ScanError) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_CODES[CANCELLED]
    return EXIT_CODES[summary["status"]]


if __name__ == "__main__":
    sys.exit(main())
