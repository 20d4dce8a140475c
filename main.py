"""Scan a slide in stripes on Ray.

python main.py                                          the simulated slide
python main.py --microscope replay --replay-path DIR    your own z-stacks
python main.py --help                                   all options

                       ┌──────── one per stripe ────────┐    [match_fields ► place_field]
 find_z_positions ──►  CaptureActor ──► batch ──► stack_batch ──► detect_objects ──► predict_scan
     (task)              (actor)    (ObjectRef)     (task)           (task)            (task)
"""

import sys
import time

BEGAN_S = time.time()  # before the imports: users wait for those, too


def refuse(message: str) -> None:
    """One line and exit code 2: nothing else of ours can be imported."""
    print(message, file=sys.stderr)
    sys.exit(2)


if sys.version_info < (3, 11):  # noqa: UP036  (the reader of this line may have an older one)
    refuse("Python: expected 3.11 or newer, got %d.%d.%d" % sys.version_info[:3])  # noqa: UP031
if sys.platform == "win32":
    refuse("Windows: expected Linux or macOS; run this program in WSL 2")

try:
    from cluster.watchdog import fork_driver

    if __name__ == "__main__":
        fork_driver()  # a process that outlives this one closes the run if Ray ends this one
    import cluster.environment  # noqa: F401, I001  (before Ray, which reads it)
    import ray

    import tasks
    from actors import CaptureActor
    from cluster.calls import RemoteCalls, close_cameras
    from cluster.connection import native_stderr_discarded
    from driver.autofocus import run_autofocus
    from driver.loop import ScanLoop
    from driver.pending import PendingSteps
    from command.program import run_program
    from driver.run import Run
    from driver.steps import (
        Capture, DetectObjects, Done, EstimateStatistics, Failed, FindZPositions, MatchFields,
        PlaceField, PredictScan, StackBatch, StartCamera, Step, Sweep, WarmUp, Withdrawn,
    )  # fmt: skip
    from scan.records import AnswerRecord, StackJob
except ImportError as error:
    refuse(f"{error}; run python main.py after python -m pip install -r requirements.txt")

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def scan(run: Run) -> AnswerRecord:
    """The workflow, in the order of the diagram."""
    with capture_actors(run) as actors:  # one CaptureActor per stripe
        pending = PendingSteps(Workflow(run, actors), run)  # remote calls in flight
        pending.start_cameras()
        focus = run_autofocus(run, pending)  # sweeps, then find_z_positions
        with ScanLoop(run, pending, focus) as loop:
            while not loop.finished:
                loop.submit_captures()  # as many as there are credits
                for outcome in pending.wait():  # blocks in ray.wait; yields what ended
                    match outcome:
                        case Done(Capture() as capture, record, batch):
                            loop.submit_stack(capture, record, batch)  # batch: an ObjectRef
                        case Done(StackBatch() as stack, record, image):
                            loop.finish_stack(stack, record, image)  # detect, or match before
                        case Done(MatchFields() as match, record):
                            loop.submit_placements(match, record)  # where all around is matched
                        case Done(PlaceField() as place, record):
                            loop.finish_placement(place, record)  # detect, where neighbours are
                        case Done(DetectObjects() as detect, record):
                            loop.finish_field(detect, record)
                        case Done(EstimateStatistics(), record):
                            loop.use_statistics(record)
                        case Failed() | Withdrawn():
                            loop.recover(outcome)  # repeat, or lose a field by name
        return loop.predict()  # predict_scan, before the cameras are closed


@contextmanager
def capture_actors(run: Run) -> Iterator[Sequence[Any]]:
    """A capture actor for each camera, where the microscopes are; closed at the end."""
    setup = ray.put(run.setup)  # held here, because a camera that restarts needs it again
    with native_stderr_discarded():  # Ray's core would warn that it might not be held
        nodes = enumerate(run.placements)
        actors = [CaptureActor.options(**at).remote(setup, camera) for camera, at in nodes]
    try:
        yield actors
    finally:
        close_cameras(actors)


class Workflow(RemoteCalls):
    """Each box of the diagram as a remote call."""

    def __init__(self, run: Run, actors: Sequence[Any]) -> None:
        super().__init__(actors, tasks.ALL)
        self.run, self.predictor = run, ray.put(run.predictor)

    def submit(self, step: Step) -> Any:
        """Start the remote call of a step: the reference to wait for, and frames to pass on."""
        run, setup, size = self.run, self.run.setup, self.run.prefault_bytes
        match step:
            case StartCamera(camera):
                return self.actors[camera].ready.remote(self.predictor, size), None
            case Sweep(field, z_um, camera):
                return self.actors[camera].sweep.remote(field, z_um)
            case FindZPositions(job, peaks, sweeps, planes):
                return self.start(step, tasks.find_z_positions, job, peaks, sweeps, *planes), None
            case EstimateStatistics(samples):
                given = samples, setup.diameter_px, self.predictor, setup.settings.task_timeout_s
                return self.start(step, tasks.estimate_statistics, *given), None
            case Capture(field, z_um, camera):
                capture: Any = self.actors[camera].capture.options(name=f"capture {field.name}")
                return capture.remote(field, z_um)
            case StackBatch(StackJob(register=True) as job, batch):
                return self.start(step, tasks.fuse_batch, job, batch)
            case StackBatch(job, batch):  # the reference goes to the task, the frames stay
                return self.start(step, tasks.stack_batch, job, batch), None
            case MatchFields(job, images):
                return self.start(step, tasks.match_fields, job, *images), None
            case PlaceField(job, image):
                return self.start(step, tasks.place_field, job, image), None
            case DetectObjects(job, statistics, _):
                return self.start(step, tasks.detect_objects, job, self.predictor, statistics), None
            case PredictScan(written, predictor):
                return self.start(step, tasks.predict_scan, run.location, written, predictor), None
            case WarmUp(after):
                return tasks.warm_up.remote(self.predictor, setup.dtype, size, *after), None

    def wait(self, references: list[Any], timeout_s: float) -> list[Any]:
        """Block until one resolves, then return all that have; nothing is fetched."""
        ray.wait(references, num_returns=1, timeout=timeout_s, fetch_local=False)
        return ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run_program(sys.argv[1:] if argv is None else argv, scan, BEGAN_S)


if __name__ == "__main__":
    sys.exit(main())
