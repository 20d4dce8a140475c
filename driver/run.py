"""The life of a run: folder, checkpoint, Ray, workflow, summary, views."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.connection import other_cluster, ray_running, requested_address, task_events
from cluster.liveness import ray_answers
from cluster.nodes import capture_placements, cpu_slots, require_cpus, spilled_mb, store_bytes
from cluster.signals import Stop
from cluster.storage_probe import require_shared_storage
from cluster.watchdog import say_location
from cluster.workers import MAX_PREFAULT_BYTES
from config import SETTINGS_FILE, Settings
from driver.checkpoint import load_checkpoint, run_fingerprint
from driver.setup import resolve_setup
from microscope.opening import Setup
from prediction import Predictor
from prediction.trial import open_separately, try_scan_predictor
from report.ending import Ending, end_run, journal_failure
from report.live import live_view
from results.files import write_atomically
from results.journal import JOURNAL, Journal
from results.run_folder import choose_folder, run_lock, versions
from results.storage import location_of, storage_at
from results.store import needed_bytes
from results.summary import Summary
from results.table import remove_parts
from scan import events
from scan.checkpoint import Checkpoint, crc_of, per_stripe
from scan.clock import now_s
from scan.credits import Credits, credits_for
from scan.events import COMPLETE, FAILED, PARTIAL
from scan.stress import stressed
from scan.supervisor import MAX_QUEUED


@dataclass(frozen=True)
class Run:
    """What the workflow needs: the scan, what earlier runs left, where results and events go."""

    setup: Setup
    predictor: Predictor
    location: str  # of images and objects: a folder or a URL
    checkpoint: Checkpoint
    journal: Journal
    credits: Credits
    stop: Stop
    placements: Sequence[Mapping[str, Any]]  # Ray options of each capture actor

    @property
    def prefault_bytes(self) -> int:
        """How much of the object store each process maps before the first batch."""
        batches = min(self.credits.total, 2 * MAX_QUEUED * self.setup.plan.cameras)
        return min(batches * self.setup.batch_bytes, MAX_PREFAULT_BYTES)


def run_scan(
    settings: Settings, out: str | Path | None = None, workflow: Callable[[Run], Any] | None = None
) -> Summary:
    """Scan into a new folder and return the summary, whose keys are those of `summary.json`.

    Nothing is printed and no signal is handled. ScanError, or one of its kinds in `scan.errors`,
    if the scan cannot begin or does not end.

    Parameters
    ----------
    settings : Settings
    out : path or URL, optional
        By default a folder under ``runs/`` that is named by the time.
    workflow : callable, optional
        By default that of `main.py`.
    """
    from main import scan  # a script of its own: it is imported by this function alone

    with ExitStack() as stack:
        folder = stack.enter_context(storage_at(out).local_folder()) if out is not None else None
        ending = execute(settings, folder, workflow or scan)
    if ending.error:
        raise ending.error
    return ending.summary


def execute(
    settings: Settings,
    folder: Path | None,
    workflow: Callable[[Run], Any],
    *,
    resume: bool = False,
    stop: Stop | None = None,
    show: Callable[[], Any] = lambda: nullcontext(lambda event: None),
    live: tuple[str, int] | None = None,
    began_s: float | None = None,
) -> Ending:
    """Scan into a new folder, or go on in one where a run stopped.

    `stop` handles signals while Ray runs; `show` is a context that gives a listener of the journal;
    `live` is where to serve the growing report; `began_s` is when the program began.
    """
    with ExitStack() as stack:
        if settings.configurations:  # real microscopes are queried by Ray
            stack.enter_context(ray_running(settings))
        setup = resolve_setup(settings)
        spec, limit_s = settings.predictor, settings.task_timeout_s
        predictor = open_separately(spec, setup.dtype, limit_s, settings.polarity)
        try_scan_predictor(settings.scan_predictor, limit_s)
        folder = folder if folder and resume else choose_folder(folder)
        stack.enter_context(run_lock(folder))
        stack.enter_context(live_view(folder.resolve(), live))
        checkpoint = load_checkpoint(setup, predictor, folder)
        storage = storage_at(location_of(folder))
        if checkpoint.complete:  # the run that ended it may have been killed before this
            remove_parts(storage.location)
            return end_run(folder)
        storage.check_disk_space(
            needed_bytes(setup.plan, setup.pixel_bytes, len(checkpoint.stacked))
        )
        listener = stack.enter_context(show())
        stack.enter_context(ray_running(settings))
        if stop:  # Ray has set handlers of its own
            stack.enter_context(stop.on_signals())
        stop, up_s = stop or Stop(), now_s()
        require_shared_storage(storage)
        require_cpus()
        credits = credits_of(setup)
        placements = capture_placements(setup.settings, setup.plan.cameras)
        if not (folder / SETTINGS_FILE).exists():
            write_atomically(folder / SETTINGS_FILE, setup.settings.to_toml())
        with Journal(folder / JOURNAL, listener) as journal:
            run = Run(
                setup, predictor, location_of(folder.resolve()), checkpoint, journal, credits, stop,
                placements,
            )  # fmt: skip
            write_header(run, up_s, began_s or up_s)
            say_location(run.location)
            error = run_workflow(run, workflow)
        with stop.deferred():  # before Ray is shut down, which takes seconds
            return end_run(folder, error, list if stop.requested else task_events)


def credits_of(setup: Setup) -> Credits:
    """Credits for this scan on this cluster."""
    fraction = setup.settings.store_fraction
    sizes = {"batch_bytes": setup.batch_bytes, "image_bytes": setup.image_bytes}
    return credits_for(store_bytes(), fraction, cameras=setup.plan.cameras, **sizes)


def write_header(run: Run, up_s: float, began_s: float) -> None:
    """Write the first events: what is planned, on what, and what is there already."""
    setup, write, checkpoint = run.setup, run.journal.write, run.checkpoint
    found = versions()
    identity = run_fingerprint(setup, run.predictor)
    facts: dict[str, Any] = {"versions": found, "identity": identity, "caveats": setup.caveats}
    facts |= {"channels": setup.channels.to_event()}
    if setup.recording:
        facts["input_sizes"] = setup.recording.size_checksum
    write(events.Begun.of(setup.plan, process_began_s=began_s, **facts))
    sizes: dict[str, Any] = {"object_store_bytes": store_bytes(), "batch_bytes": setup.batch_bytes}
    sizes |= {"credits": run.credits.total, "identity_crc": crc_of(identity)}
    write(events.RayStarted(up_s=up_s, cpus=cpu_slots(), **sizes))
    before = checkpoint.begun.versions if checkpoint.begun else found
    if checkpoint.begun or checkpoint.stacked:
        stacked = per_stripe(checkpoint.stacked, setup.plan)
        detected = per_stripe(checkpoint.detected, setup.plan)
        write(events.Resumed(stacked=tuple(stacked), detected=tuple(detected)))
    changed = [f"{k} {before.get(k)}, now {v}" for k, v in found.items() if before.get(k) != v]
    warnings = [*setup.warnings, *checkpoint.warnings]
    warnings += [f"the run was begun with {each}" for each in changed]
    if not requested_address(setup.settings) and (other := other_cluster()):
        warnings.append(f"another Ray runs here at {other}; --address {other} joins it")
    for message in warnings:
        write(events.Warned(message=message))


def run_workflow(run: Run, workflow: Callable[[Run], Any]) -> BaseException | None:
    """Run the workflow and write the last events; returns the error that ended it, if any."""
    error: BaseException | None = None
    try:
        with stressed(run.setup.settings, run.journal.write):
            answer = workflow(run)
        run.journal.write(events.Predicted(**vars(answer)))
        if not run.journal.seen(events.Lost):
            remove_parts(run.location)
        status = PARTIAL if run.journal.seen(events.Lost) else COMPLETE
        if not (run.checkpoint.detected or run.journal.seen(events.Detected)):
            status = FAILED
    except (Exception, KeyboardInterrupt) as raised:
        stopped = run.stop.requested or isinstance(raised, KeyboardInterrupt)
        error = KeyboardInterrupt() if stopped else raised  # a signal may have ended Ray as well
        if stopped and not run.journal.seen(events.Stopping):
            run.journal.write(events.Stopping())
        status = journal_failure(run.journal, error)
    run.journal.write(
        events.Finished(
            status=status,
            peak_batches_in_flight=run.credits.peak,
            spilled_mb=spilled_mb() if ray_answers() else None,
            driver_cpu_s=round(time.process_time(), 3),
        )
    )
    return error
