"""The same workload under five orchestrators, each as its own documentation would have it.

Each function runs a workload and returns its timeline; `empty_tasks` functions return empty tasks
per second. Each function imports only what it needs, since start-up counts.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.workload import NICENESS, Camera, Capture, Timeline, Work, Workload, rehearse, stack

AHEAD = 2  # captures queued per camera
EMPTY_TASKS = 1000
Around = Callable[[], Any]  # a context in which the cameras run: idle, or with burners


@contextmanager
def driver_cpu(timeline: Timeline) -> Iterator[None]:
    """Count the CPU seconds of this process."""
    before_s = time.process_time()
    yield
    timeline.driver_cpu_s = time.process_time() - before_s


# ------------------------------------------------------------------------------- this project


CHANGES = {  # what this driver does not do, one by one: environment of Ray
    "memory not touched": {},
    "workers not warmed": {},
    "workers at Ray's niceness": {"RAY_worker_niceness": "15"},
    "stacking not lowered": {},
    "idle workers end": {"RAY_idle_worker_killing_time_threshold_ms": "1000"},
    "store preallocated": {"RAY_preallocate_plasma_memory": "1"},
}


def this_driver(
    work: Workload,
    around: Around,
    change: str = "",
    stacking: Any = None,
    camera_options: Mapping[str, Any] | None = None,
) -> Timeline:
    """This project's own workflow, actors and workers; the kernel is the workload's, or that of the
    task that is given for stacking.

    There is neither autofocus nor detection.
    """
    os.environ |= CHANGES.get(change, {})
    import main
    import tasks
    from cluster.connection import ray_running
    from cluster.signals import Stop
    from driver import run as runs
    from microscope.opening import Setup
    from prediction.opening import open_predictor
    from results.journal import JOURNAL, Journal
    from scan.checkpoint import Checkpoint
    from scan.layout import make_plan

    settings = settings_of(work)
    plan = make_plan((work.fields,) * work.stripes, (work.edge_px,) * 2, 0, 1.0, steered=True)
    dtype, folder = np.dtype(np.uint16), Path(tempfile.mkdtemp())
    opener = partial(ProjectCamera, work)
    setup = Setup(settings, plan, planes=work.planes, z_step_um=1.0, dtype=dtype, opener=opener)
    lowered = change != "stacking not lowered"
    tasks.stack_batch = stacking or project_stacking(work, lowered)
    if change == "memory not touched":
        runs.MAX_PREFAULT_BYTES = 0
    if change == "workers not warmed":
        main.Workflow.cpu_slots = lambda workflow: 0
    timeline = Timeline()
    main.run_autofocus = partial(instead_of_autofocus, timeline)
    main.ScanLoop = partial(stacking_loop(), lambda: measured(around, timeline))
    with ray_running(settings), Journal(folder / JOURNAL) as journal:
        run = runs.Run(
            setup,
            open_predictor("classic", dtype),
            str(folder),
            Checkpoint(plan),
            journal,
            runs.credits_of(setup),
            Stop(),
            camera_options or {},
        )
        main.scan(run)
    return read_back(folder / JOURNAL, timeline)


@contextmanager
def measured(around: Around, timeline: Timeline) -> Iterator[None]:
    """The part of a run that is compared."""
    with around(), driver_cpu(timeline):
        yield


def instead_of_autofocus(timeline: Timeline, run: Any, pending: Any) -> Any:
    """Wait until cameras and workers are ready; all heights are known."""
    from driver.autofocus import Focus

    plan = run.setup.plan
    while not all(map(pending.cameras.available, range(plan.cameras))):
        list(pending.wait())
    timeline.ready_s = time.time()
    while pending._pending:
        list(pending.wait())
    planes = run.setup.planes
    return Focus({f.place: (0.0,) * planes for f in plan.fields}, None)


def stacking_loop() -> Any:
    """The project's loop without detection: a field counts as detected once it is stacked."""
    from driver.loop import ScanLoop

    class StackingLoop(ScanLoop):
        def __init__(self, around: Around, *given: Any) -> None:
            super().__init__(*given)
            self._closing.enter_context(around())

        def _submit_detections(self, *settled: Any) -> None:
            for place in settled:
                for field in self.state.detections_to_submit(place):
                    self.state.mark_detected(field)

        def predict(self) -> None:
            """There is nothing to predict."""

    return StackingLoop


def settings_of(work: Workload) -> Any:
    """The project's settings for a workload."""
    from config import validate

    given = {"stripes": work.stripes, "fields": work.fields, "planes": work.planes}
    return validate(
        {**given, "field_px": work.edge_px, "overlap_px": 0, "num_cpus": work.cpus}
        | {"exposure_ms": 1e3 * work.exposure_s, "pixel_size_um": 0.3}
    )


class ProjectCamera:
    """The workload's camera as a microscope of the project."""

    def __init__(self, work: Workload, setup: Any, camera: int) -> None:
        self.camera = Camera(work)
        self.stripes = {(f.x_um, f.y_um): f.stripe for f in setup.plan.fields}

    def stack(self, x_um: float, y_um: float, z_um: Any, channel: int = 0) -> Any:
        """A batch, with the times of its planes."""
        from microscope import ZStack

        taken, frames = self.camera.capture(self.stripes[x_um, y_um])
        due_s = tuple(taken.began_s - slip / 1e3 for slip in taken.slips_ms)
        return ZStack(frames, due_s, (taken.began_s,) * len(due_s), taken.complete_s)

    def stop(self) -> None:
        """There is nothing to stop."""

    def close(self) -> None:
        """There is nothing to close."""


def project_stacking(work: Workload, lowered: bool) -> Any:
    """Stacking with the workload's kernel at the project's low priority."""
    import ray

    import tasks
    from scan.records import StackRecord, WorkRecord

    @ray.remote(num_cpus=1, max_retries=0)
    def stack_batch(job: Any, frames: Any) -> StackRecord:
        if lowered:
            return StackRecord((0, 0), tasks._timed(stack, frames, work.cpu_s)[1])
        made = stack(frames, work.cpu_s)
        return StackRecord((0, 0), WorkRecord(made.began_s, made.ended_s, made.cpu_s))

    return stack_batch


def read_back(journal: Path, timeline: Timeline) -> Timeline:
    """The timeline of a run from its journal."""
    from results.journal import read_journal
    from scan.events import Captured, Stacked

    begun = {}
    for event in read_journal(journal):
        if isinstance(event, Captured):
            begun[event.place] = event.began_s, event.slips_ms
        elif isinstance(event, Stacked):
            capture = Capture(begun[event.place][0], event.asked_s, begun[event.place][1])
            timeline.captures[event.place] = capture
            timeline.works[event.place] = Work(event.began_s, event.ended_s, event.cpu_s)
    return timeline


def nothing() -> None:
    """An empty task."""


def ray_empty_tasks(work: Workload) -> float:
    """Empty tasks per second on a local Ray as this project starts it."""
    import ray

    from cluster.connection import ray_running

    with ray_running(settings_of(work)):
        task = ray.remote(nothing)
        ray.get([task.remote() for _ in range(work.cpus)])
        began_s = time.perf_counter()
        ray.get([task.remote() for _ in range(EMPTY_TASKS)])
        return EMPTY_TASKS / (time.perf_counter() - began_s)


# -------------------------------------------------------------------- Ray, asked again and again


def polling(work: Workload, around: Around) -> Timeline:
    """The predecessor's pattern: Ray as it comes, and a loop that asks with `timeout=0`."""
    import ray

    actor_class = ray.remote(num_cpus=0)(Camera)
    stacking = ray.remote(stack)
    ray.init(
        address="local", num_cpus=work.cpus, include_dashboard=False, logging_level="ERROR",
        log_to_driver=False,
    )  # fmt: skip
    timeline = Timeline()
    actors = [actor_class.remote(work) for _ in range(work.stripes)]
    ray.get([actor.__ray_ready__.remote() for actor in actors])
    timeline.ready_s = time.time()
    with around(), driver_cpu(timeline):
        shots, stacks = {}, {}
        for stripe, field in work.places:
            taken, frames = actors[stripe].capture.options(num_returns=2).remote(stripe)
            shots[frames] = (stripe, field), taken
        while shots or stacks:
            for frames in ray.wait(list(shots), timeout=0)[0] if shots else ():
                place, taken = shots.pop(frames)
                timeline.captures[place] = ray.get(taken)
                stacks[stacking.remote(frames, work.cpu_s)] = place
            for ref in ray.wait(list(stacks), timeout=0)[0] if stacks else ():
                timeline.works[stacks.pop(ref)] = ray.get(ref)
    ray.shutdown()
    return timeline


# ----------------------------------------------------------- processes and shared memory alone


def processes(work: Workload, around: Around) -> Timeline:
    """A process per camera, a `ProcessPoolExecutor`, frames in shared memory, no framework."""
    context = multiprocessing.get_context("spawn")
    reports: Any = context.SimpleQueue()
    rings = [
        [SharedMemory(create=True, size=work.batch_bytes) for _ in range(2 * AHEAD + 1)]
        for _ in range(work.stripes)
    ]
    free: list[Any] = [context.SimpleQueue() for _ in rings]
    cameras = [
        context.Process(
            target=photograph, args=(work, stripe, [m.name for m in ring], free[stripe], reports)
        )
        for stripe, ring in enumerate(rings)
    ]
    timeline = Timeline()
    with ProcessPoolExecutor(work.cpus, context, lower_and_rehearse) as pool:
        for camera in cameras:
            camera.start()
        for _ in cameras:
            reports.get()
        timeline.ready_s = time.time()
        for warming in [pool.submit(time.sleep, 0.5) for _ in range(work.cpus)]:
            warming.result()
        with around(), driver_cpu(timeline):
            direct_processes(work, rings, free, reports, pool, timeline)
    for camera in cameras:
        camera.join()
    for memory in [memory for ring in rings for memory in ring]:
        memory.close()
        memory.unlink()
    return timeline


def direct_processes(
    work: Workload,
    rings: Any,
    free: Any,
    reports: Any,
    pool: ProcessPoolExecutor,
    timeline: Timeline,
) -> None:
    """Hand every batch that a camera reports to the pool, and its memory back to the camera."""
    for stripe, ring in enumerate(rings):
        for memory in ring:
            free[stripe].put(memory.name)
    futures: dict[tuple[int, int], Future[Work]] = {}
    for _ in work.places:
        stripe, field, name, taken = reports.get()
        timeline.captures[stripe, field] = taken
        future = pool.submit(stack_shared, name, work)
        future.add_done_callback(lambda _, name=name, queue=free[stripe]: queue.put(name))
        futures[stripe, field] = future
    timeline.works |= {place: future.result() for place, future in futures.items()}


def photograph(work: Workload, stripe: int, names: list[str], free: Any, reports: Any) -> None:
    """The process of one camera: a batch into every piece of memory that is free."""
    camera = Camera(work)
    for name in names:
        attached(name)
    reports.put(stripe)
    for field in range(work.fields):
        name = free.get()
        reports.put((stripe, field, name, camera.capture_into(frames_in(name, work), stripe)))


@cache
def attached(name: str) -> SharedMemory:
    """Shared memory of that name, attached once in a process."""
    return SharedMemory(name)


def frames_in(name: str, work: Workload) -> np.ndarray:
    """The batch (z, y, x) that lies in shared memory."""
    shape = (work.planes, work.edge_px, work.edge_px)
    return np.ndarray(shape, np.uint16, attached(name).buf)


def stack_shared(name: str, work: Workload) -> Work:
    """Stack a batch that lies in shared memory."""
    return stack(frames_in(name, work), work.cpu_s)


def lower_and_rehearse() -> None:
    """Make a worker process modest and ready."""
    os.nice(NICENESS)
    rehearse()


def processes_empty_tasks(work: Workload) -> float:
    """Empty tasks per second of the pool."""
    with ProcessPoolExecutor(work.cpus, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(abs, range(work.cpus)))
        began_s = time.perf_counter()
        for future in [pool.submit(int) for _ in range(EMPTY_TASKS)]:
            future.result()
        return EMPTY_TASKS / (time.perf_counter() - began_s)


# ------------------------------------------------------------------------------------- Dask


def dask(work: Workload, around: Around) -> Timeline:
    """A worker process per camera, stacking on the others, frames by Dask's own transfer."""
    from distributed import Client

    timeline = Timeline()
    with Client(
        n_workers=work.stripes + work.cpus,
        threads_per_worker=1,
        dashboard_address=None,
        silence_logs=50,
    ) as client:
        workers = list(client.scheduler_info(n_workers=-1)["workers"])
        homes, benches = workers[: work.stripes], workers[work.stripes :]
        client.run(camera_of, work, workers=homes)
        timeline.ready_s = time.time()
        client.run(lower_and_rehearse, workers=benches)
        with around(), driver_cpu(timeline):
            stacks = direct_dask(work, client, homes, benches, timeline)
            timeline.works |= dict(zip(stacks, client.gather(list(stacks.values())), strict=True))
    return timeline


def direct_dask(
    work: Workload, client: Any, homes: list[str], benches: list[str], timeline: Timeline
) -> dict[tuple[int, int], Any]:
    """Two captures ahead per camera, a stacking for every batch that is complete."""
    from distributed import as_completed

    shots, pending, stacks = as_completed(), {}, {}

    def ask(stripe: int, field: int) -> None:
        batch = client.submit(dask_capture, work, stripe, workers=[homes[stripe]], pure=False)
        record = client.submit(dask_record, batch, workers=[homes[stripe]], pure=False)
        pending[record] = stripe, field, batch
        shots.add(record)

    for place in work.places[: AHEAD * work.stripes]:
        ask(*place)
    for record in shots:
        stripe, field, batch = pending.pop(record)
        timeline.captures[stripe, field] = record.result()
        if field + AHEAD < work.fields:
            ask(stripe, field + AHEAD)
        stacks[stripe, field] = client.submit(
            dask_stack, batch, work.cpu_s, workers=benches, pure=False
        )
    return stacks


@cache
def camera_of(work: Workload) -> Camera:
    """The camera that a process owns."""
    return Camera(work)


def dask_capture(work: Workload, stripe: int) -> tuple[Capture, np.ndarray]:
    """A batch, on the worker that owns the camera."""
    return camera_of(work).capture(stripe)


def dask_record(batch: tuple[Capture, np.ndarray]) -> Capture:
    """The small part of a batch."""
    return batch[0]


def dask_stack(batch: tuple[Capture, np.ndarray], cpu_s: float) -> Work:
    """Stack a batch that has come over from its camera's worker."""
    return stack(batch[1], cpu_s)


def dask_empty_tasks(work: Workload) -> float:
    """Empty tasks per second of a local Dask cluster."""
    from distributed import Client

    with Client(
        n_workers=work.cpus, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as client:
        client.gather(client.map(abs, range(work.cpus)))
        began_s = time.perf_counter()
        client.gather([client.submit(int, pure=False) for _ in range(EMPTY_TASKS)])
        return EMPTY_TASKS / (time.perf_counter() - began_s)


# ----------------------------------------------------------------------------------- Prefect


def prefect(work: Workload, around: Around) -> Timeline:
    """A Prefect flow: cameras in threads of the flow, stacking in its process pool."""
    from prefect import flow
    from prefect.task_runners import ProcessPoolTaskRunner

    runner = ProcessPoolTaskRunner(max_workers=work.cpus)
    return flow(direct_prefect, task_runner=runner, validate_parameters=False)(work, around)


def direct_prefect(work: Workload, around: Around) -> Timeline:
    """The flow: a stacking for every batch that a camera delivers."""
    from prefect import task

    timeline, reports = Timeline(), queue.SimpleQueue()
    for rehearsing in [task(lower_and_rehearse).submit() for _ in range(work.cpus)]:
        rehearsing.wait()
    timeline.ready_s = time.time()
    with around(), driver_cpu(timeline):
        for stripe in range(work.stripes):
            threading.Thread(target=photograph_here, args=(work, stripe, reports)).start()
        futures = {}
        for _ in work.places:
            place, (timeline.captures[place], frames) = reports.get()
            futures[place] = task(stack).submit(frames, work.cpu_s)
        timeline.works |= {place: future.result() for place, future in futures.items()}
    return timeline


def photograph_here(work: Workload, stripe: int, reports: Any) -> None:
    """The thread of one camera."""
    camera = Camera(work)
    for field in range(work.fields):
        reports.put(((stripe, field), camera.capture(stripe)))


VARIANTS = {change: partial(this_driver, change=change) for change in CHANGES}
SYSTEMS: dict[str, Callable[[Workload, Around], Timeline]] = {
    "this driver": this_driver,
    "Ray, polling": polling,
    "Dask": dask,
    "processes": processes,
    "Prefect": prefect,
}
EMPTY: dict[str, Callable[[Workload], float]] = {
    "this driver": ray_empty_tasks,
    "Dask": dask_empty_tasks,
    "processes": processes_empty_tasks,
}
