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

import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

from actors import CaptureActor
from config import Settings, SettingsError, parse
from imaging.ownership import label_dtype
from microscope.opening import Setup, prepare
from prediction import Predictor
from prediction.opening import open_predictor
from results.journal import Event, Journal
from results.progress import progress
from results.run_folder import choose_folder, make_folder, versions
from results.store import create_mosaics
from results.summary import in_words, summarise, write_summary
from results.table import remove_parts
from scan.credits import Credits, credits_for
from scan.errors import ScanError, UserMistake
from scan.focusing import FocusJob, FocusResult
from scan.ledger import Ledger
from scan.plan import Field
from scan.records import CaptureRecord, DetectionJob, StackJob, WorkRecord
from tasks import (
    describe_specimen,
    detect_objects,
    find_z_positions,
    predict_scan,
    stack_batch,
    warm_up,
)

COMPLETE, PARTIAL, FAILED, CANCELLED = "complete", "partial", "failed", "cancelled"
EXIT_CODES = {COMPLETE: 0, PARTIAL: 3, FAILED: 1, CANCELLED: 130}


# ------------------------------------------------------------------------------------ the scan


def scan(
    setup: Setup, predictor: Predictor, folder: Path, journal: Journal, batches: Credits
) -> None:
    """The whole workflow, as in the figure; what happens is told to the journal."""
    actors = [
        CaptureActor.options(name=f"camera of stripe {stripe}").remote(setup)
        for stripe in range(len(setup.plan.stripes))
    ]
    model = ray.put(predictor)
    warming = [warm_up.remote(model, setup.dtype) for _ in range(cpu_slots())]

    focus_job = FocusJob(setup.plan, setup.settings, setup.recorded_z_um)
    focused: Any = find_z_positions.remote(actors, focus_job)
    described: Any = describe_specimen.remote(focused[1], diameter_px(setup), model)
    focus: FocusResult = ray.get(focused[0])
    create_mosaics(folder, setup.plan, setup.dtype, label_dtype(setup.plan.mosaic_shape))
    journal.write("focused", **focus.told())

    ledger = Ledger(setup.plan, batches, setup.settings.retries)
    flow = Flow(setup, folder, actors, focus, model, described[0], ledger, journal, {})
    flow.pending = {described[1]: flow.described} | dict.fromkeys(warming, flow.warmed)
    flow.run()

    detected = sorted((field.stripe, field.field) for field in ledger.detected)
    answer = ray.get(predict_scan.remote(str(folder), detected))
    remove_parts(folder)
    journal.write("predicted", **vars(answer))
    ray.get([actor.close.remote() for actor in actors])


@dataclass
class Flow:
    """The one loop: a dict of pending references, each with what to do when it resolves."""

    setup: Setup
    folder: Path
    actors: Sequence[Any]
    focus: FocusResult
    predictor: ray.ObjectRef
    statistics: ray.ObjectRef
    ledger: Ledger
    journal: Journal
    pending: dict[ray.ObjectRef, Callable[[ray.ObjectRef], None]]

    def run(self) -> None:
        """Until every field is detected or lost: begin what may begin, then wait for anything."""
        while not self.ledger.finished:
            for field in self.ledger.captures_to_begin():
                self.capture(field)
            for ref in self.resolved():
                self.pending.pop(ref)(ref)

    def resolved(self) -> list[ray.ObjectRef]:
        """Block until something resolves, then take all that has; nothing is fetched."""
        waiting = list(self.pending)
        ray.wait(waiting, num_returns=1, fetch_local=False)
        return ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)[0]

    def warmed(self, ref: ray.ObjectRef) -> None:
        """A worker has imported and compiled what it needs."""
        self.journal.write("warmed", **vars(ray.get(ref)))

    def described(self, ref: ray.ObjectRef) -> None:
        """It is known by what every field will be searched."""
        self.journal.write("described", **vars(ray.get(self.statistics)), **vars(ray.get(ref)))

    def capture(self, field: Field) -> None:
        """Ask the stripe's actor for a batch: a small record to wait for, frames to pass on."""
        z_um = self.focus.z_um[field.stripe, field.field]
        actor = self.actors[field.stripe]
        record, frames = actor.capture.options(name=f"capture {field.name}").remote(field, z_um)
        self.pending[record] = partial(self.captured, field, frames)

    def captured(self, field: Field, frames: ray.ObjectRef, ref: ray.ObjectRef) -> None:
        """A batch resolved: stack it this moment."""
        try:
            record: CaptureRecord = ray.get(ref)
        except RayError as error:
            self.failed("capture", field, error)
            return
        self.ledger.was_captured(field)
        job = StackJob(str(self.folder), field, record.z_um, self.setup.settings.align)
        stacked = stack_batch.options(name=f"stack {field.name}").remote(job, frames)
        self.pending[stacked] = partial(self.stacked, record, field)
        self.tell(
            "captured",
            field,
            began_s=record.began_s,
            ended_s=record.ended_s,
            slips_ms=[round(slip, 3) for slip in record.slips_ms],
            process=record.process,
            in_flight=self.ledger.credits.taken,
        )

    def stacked(self, record: CaptureRecord, field: Field, ref: ray.ObjectRef) -> None:
        """A field lies in the mosaic: search every field whose surroundings are complete now."""
        try:
            work: WorkRecord = ray.get(ref)
        except RayError as error:
            if not is_loss(error):
                raise
            self.failed("stack", field, error)
            return
        self.ledger.was_stacked(field)
        self.detect_around(field)
        self.tell(
            "stacked",
            field,
            asked_s=record.complete_s,
            in_flight=self.ledger.credits.taken,
            **vars(work),
        )

    def detect_around(self, settled: Field) -> None:
        """Search the fields that waited for `settled` alone."""
        for field in self.ledger.detections_to_begin(settled):
            plan = self.setup.plan
            around = plan.surroundings(field)
            job = DetectionJob(str(self.folder), field, around, plan.pixel_size_um)
            searching = detect_objects.options(name=f"detect {field.name}")
            ref = searching.remote(job, self.predictor, self.statistics)
            self.pending[ref] = partial(self.detected, time.time(), field)

    def detected(self, asked_s: float, field: Field, ref: ray.ObjectRef) -> None:
        """The objects of a field lie on disk."""
        try:
            record = ray.get(ref)
        except RayError as error:
            if not (is_loss(error) or isinstance(cause_of(error), ScanError)):
                raise
            self.ledger.lost[field] = reason_of(error)
            self.tell("lost", field, reason=reason_of(error))
            return
        self.ledger.was_detected(field)
        self.tell("detected", field, asked_s=asked_s, objects=record.objects, **vars(record.work))

    def failed(self, step: str, field: Field, error: RayError) -> None:
        """A batch did not come, or vanished: it will be captured again, or its field is lost."""
        reason = reason_of(error)
        if step == "capture":
            self.ledger.was_captured(field)
        if isinstance(error, RayActorError):
            self.await_camera(field.stripe)
        if self.ledger.failed(field, reason):
            self.tell("retried", field, step=step, reason=reason)
            return
        self.tell("lost", field, reason=reason)
        self.detect_around(field)

    def await_camera(self, stripe: int) -> None:
        """Ask nothing of a stripe's actor until Ray has started it anew."""
        if stripe not in self.ledger.paused:
            self.ledger.paused.add(stripe)
            self.pending[self.actors[stripe].ready.remote()] = partial(self.revived, stripe)

    def revived(self, stripe: int, ref: ray.ObjectRef) -> None:
        """The actor lives again, or never will: then its captures fail and are counted."""
        self.ledger.paused.discard(stripe)

    def tell(self, event: str, field: Field, **facts: Any) -> None:
        """One line of the journal about a field."""
        self.journal.write(event, stripe=field.stripe, field=field.field, **facts)


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
    first = (str(cause).strip().splitlines() or [""])[0]
    return first if isinstance(cause, ScanError) else f"{type(cause).__name__}: {first}"


# ------------------------------------------------------------------------------- Ray around it


@contextmanager
def ray_running(settings: Settings) -> Iterator[None]:
    """Join the cluster that is asked for, or start a local Ray; one that runs already is used."""
    if ray.is_initialized():
        yield
        return
    address = settings.address or os.environ.get("RAY_ADDRESS")
    try:
        start_ray(address, settings)
    except (OSError, ValueError, RuntimeError) as error:
        came = (str(error).strip().splitlines() or [type(error).__name__])[0]
        subject = f"Ray at {address}" if address else "local Ray"
        advice = "check --address" if address else "check object_store_mb and num_cpus"
        raise UserMistake(subject, "a Ray that answers", came, advice) from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to be stopped is to be interrupted
    try:
        yield
    finally:
        ray.shutdown()


def start_ray(address: str | None, settings: Settings) -> None:
    """Join a cluster or start a local Ray; its size is ours to say only in the latter case."""
    os.environ.setdefault("RAY_worker_niceness", "0")  # cameras at 0, stacking lowers itself
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # nothing here needs a GPU
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not address:
        store_bytes = settings.object_store_mb * 10**6
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=settings.num_cpus,
            object_store_memory=store_bytes,
            **common,
        )
        return
    host, _, port = address.rpartition(":")
    if port.isdigit():  # Ray itself would try for minutes
        socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=5).close()
    ray.init(address=address, **common)


def cpu_slots() -> int:
    """CPU slots for stacking and detection in the whole cluster."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def store_bytes() -> int:
    """Size of the smallest object store of the cluster."""
    sizes = (
        node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]
    )
    return int(min(size for size in sizes if size))


def spilled_mb() -> float | None:
    """Megabytes that Ray spilled to disk; None where this Ray does not tell."""
    try:  # the only source that needs no dashboard process is a private one
        from ray._private import internal_api

        state = internal_api.get_state_from_address(ray.get_runtime_context().gcs_address)
        stats = internal_api.get_memory_info_reply(state).store_stats
        return round(stats.spilled_bytes_total / 1e6, 3)
    except (ImportError, AttributeError, AssertionError, RuntimeError):
        return None


# ------------------------------------------------------------------------------ a run around it


def credits_of(setup: Setup) -> Credits:
    """Credits for this scan on this Ray."""
    return credits_for(
        store_bytes(), setup.settings.store_fraction, setup.batch_bytes, len(setup.plan.stripes)
    )


def diameter_px(setup: Setup) -> float | None:
    """The object diameter that the settings give, in pixels."""
    given_um = setup.settings.diameter_um
    return given_um / setup.plan.pixel_size_um if given_um else None


def run(setup: Setup, predictor: Predictor, folder: Path, plain: bool) -> str:
    """Scan into a folder and leave its summary; returns the status."""
    events: list[Event] = []
    with progress(plain) as show, ray_running(setup.settings):
        up_s = time.time()
        batches = credits_of(setup)
        make_folder(folder, setup.settings.to_toml())
        with Journal(folder / "events.jsonl", events.append, show) as journal:
            begin(setup, predictor, journal, up_s, batches.total)
            status = guarded_scan(setup, predictor, folder, journal, batches)
            journal.write(
                "finished",
                status=status,
                peak_batches_in_flight=batches.peak,
                spilled_mb=spilled_mb(),
                driver_cpu_s=round(time.process_time(), 3),
            )
        summary = summarise(events)
        write_summary(folder, summary)  # before Ray is shut down, which takes its time
    print(*in_words(summary), sep="\n")
    return status


def begin(setup: Setup, predictor: Predictor, journal: Journal, up_s: float, credits: int) -> None:
    """The first lines of the journal: what is planned, and on what."""
    counts = [len(stripe) for stripe in setup.plan.stripes]
    rows, columns = setup.plan.mosaic_shape
    journal.write(
        "begun",
        process_began_s=PROCESS_BEGAN_S,
        stripes=counts,
        layout=f"{len(counts)} stripes of {counts[0]} fields, {rows} x {columns} pixels",
        fields=len(setup.plan.fields),
        versions=versions(),
        **predictor.told(),
    )
    journal.write(
        "ray",
        up_s=up_s,
        cpus=cpu_slots(),
        object_store_bytes=store_bytes(),
        batch_bytes=setup.batch_bytes,
        credits=credits,
    )
    for warning in setup.warnings:
        journal.write("warning", message=warning)


def guarded_scan(
    setup: Setup, predictor: Predictor, folder: Path, journal: Journal, batches: Credits
) -> str:
    """Scan; whatever happens becomes a status and a line of the journal."""
    try:
        scan(setup, predictor, folder, journal, batches)
    except KeyboardInterrupt:
        return CANCELLED
    except Exception as error:
        cause = cause_of(error)
        journal.write("failed", reason=str(cause).strip())
        if isinstance(cause, ScanError):
            print(cause, file=sys.stderr)
        else:
            traceback.print_exception(error)
        return FAILED
    if not journal.seen("detected"):
        return FAILED
    return PARTIAL if journal.seen("lost") else COMPLETE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    try:
        call = parse(sys.argv[1:] if argv is None else argv)
        setup = prepare(call.settings)
        folder = choose_folder(call.out)
        predictor = open_predictor(call.settings.predictor, setup.dtype)
        status = run(setup, predictor, folder.resolve(), call.plain)  # workers may stand elsewhere
    except (SettingsError, UserMistake) as mistake:
        print(mistake, file=sys.stderr)
        return mistake.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_CODES[CANCELLED]
    print(folder)
    return EXIT_CODES[status]


if __name__ == "__main__":
    sys.exit(main())
