"""What earlier runs left in a folder, checked before a run goes on from it."""

import logging
from pathlib import Path
from typing import Any

from config import FREE_ON_RESUME, marked
from microscope.opening import Setup
from microscope.recorded_pixels import require_same_pixels, was_copied
from prediction import Predictor
from results.files import readable
from results.journal import JOURNAL, read_journal
from results.storage import location_of
from results.store import create_mosaics
from results.verification import differences, remove_temp_files, verify
from scan.checkpoint import Checkpoint

log = logging.getLogger(__name__)


def load_checkpoint(setup: Setup, predictor: Predictor, folder: Path) -> Checkpoint:
    """The state of a run folder, as far as it holds on disk; InputError if what would be scanned
    now has another answer, and the folder is left unchanged then."""
    location = location_of(folder)
    with readable(location):
        events = read_journal(folder / JOURNAL)
        checkpoint = Checkpoint.of(events, setup.plan)
        fingerprint = run_fingerprint(setup, predictor)
        if was_copied(checkpoint.begun, setup.recording):
            require_same_pixels(setup, checkpoint.recorded)
            fingerprint["input"] = checkpoint.begun.identity["input"]
        checkpoint.require_same_run(fingerprint, location)
        remove_temp_files(folder)
        if setup.settings.register_fields:
            checkpoint.require_placed()
        if checkpoint.focused or checkpoint.stacked:
            fields = len(checkpoint.stacked), len(setup.plan.fields)
            log.info("reading back %d of %d fields", *fields)
            create_mosaics(
                location, setup.plan, setup.dtype, setup.settings.origin_um, setup.channels
            )
            checkpoint.complete = checkpoint.complete and not differences(location, events)
            if not checkpoint.complete:
                verify(location, checkpoint)
    return checkpoint


def run_fingerprint(setup: Setup, predictor: Predictor) -> dict[str, Any]:
    """All that decides the answer: the settings, the pixels of a recording, the model."""
    settings = setup.settings.model_dump(mode="json", exclude=marked(FREE_ON_RESUME))
    source = setup.recording.checksum if setup.recording else setup.frames
    return {"input": source, **settings, **setup.fields, **predictor.to_event()}
