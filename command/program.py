"""The program: what `python main.py` does around a run, in messages and exit codes."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from cluster import watchdog
from cluster.signals import Stop
from command.command_line import parse
from config import SettingsError
from driver.run import Run, execute
from report import write_again
from report.ending import EXIT_CODES, close_run, print_differences, print_ending
from report.progress import log_shown, progress
from results.storage import location_of, storage_at
from scan.errors import ScanError
from scan.events import CANCELLED
from scan.text import one_line


def run_program(argv: Sequence[str], workflow: Callable[[Run], Any], began_s: float) -> int:
    """Run the program; returns its exit code. User mistakes are one line on standard error."""
    death = watchdog.death
    code = tell_death(death) if death else run_command(argv, workflow, began_s)
    watchdog.say_code(code)
    return code


def tell_death(death: watchdog.Death) -> int:
    """Close the run of a process that died, which was said; returns the exit code."""
    error = KeyboardInterrupt() if death.stopped else death.error
    code = EXIT_CODES[CANCELLED] if death.stopped else death.error.exit_code
    try:
        if death.location:
            with storage_at(death.location).local_folder() as folder:
                return print_ending(close_run(folder, error))
        if death.stopped:
            print("interrupted", file=sys.stderr)
    except ScanError as other:  # the folder is in use, or the disk is full
        print(other, file=sys.stderr)
    return code


def run_command(argv: Sequence[str], workflow: Callable[[Run], Any], began_s: float) -> int:
    """Do what the command line asks for; returns the exit code."""
    try:
        with ExitStack() as stack:
            stack.enter_context(log_shown())
            call = parse(argv, lambda place: stack.enter_context(storage_at(place).local_folder()))
            if call.report:
                write_again(call.report)
                print(one_line(f"{location_of(call.report)}/report.html"))
                return 0
            if call.verify:
                return print_differences(call.verify)
            ending = execute(
                call.settings,
                call.resume or call.out,
                workflow,
                resume=call.resume is not None,
                stop=Stop(),
                show=lambda: progress(plain=call.plain),
                live=call.live,
                began_s=began_s,
            )
            return print_ending(ending)
    except (SettingsError, ScanError) as error:
        print(one_line(str(error)), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_CODES[CANCELLED]
