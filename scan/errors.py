"""The errors of a scan, each with what was expected, what was got and what to do.

ScanError                 exit 1
├── UserMistake           exit 2: settings or input are wrong; one line, no traceback
│   └── InputError        a recording, a file or a folder cannot be used
├── FocusError            autofocus found no focus surface
├── ShadingError          autofocus images do not tell how the field is lit
├── CaptureError          a microscope did not deliver a batch
└── StorageError          results cannot be written: the disk is full, or the folder is gone

The four parts stay in ``args``, so an error that crosses Ray arrives with its type and its fields.
"""

from scan.text import one_line

MAX_PART_CHARS = 500  # names of files and messages of libraries may have any length


class ScanError(Exception):
    """A failure described in four parts; its text is one line.

    Parameters
    ----------
    subject : str
        File, setting or device that the error is about.
    expected, got : str
        What the program needs, and what it found instead.
    hint : str
        What to do.
    """

    exit_code = 1

    def __init__(self, subject: str, expected: str, got: str, hint: str) -> None:
        super().__init__(subject, expected, got, hint)

    @property
    def subject(self) -> str:
        """Return the file, setting or device that the error is about."""
        return str(self.args[0])

    def __str__(self) -> str:
        subject, expected, got, hint = (one_line(str(part), MAX_PART_CHARS) for part in self.args)
        return f"{subject}: expected {expected}, got {got}; {hint}"


class UserMistake(ScanError):
    """Settings or input are wrong: one line is printed, nothing is written."""

    exit_code = 2


class InputError(UserMistake):
    """A recording, a file or a folder cannot be used; the subject names it."""


class FocusError(ScanError):
    """Autofocus found no focus surface; the scan cannot start."""


class ShadingError(ScanError):
    """The flat field cannot be estimated; the scan cannot start."""


class CaptureError(ScanError):
    """A microscope did not deliver a batch; the subject names the device or the field."""


class StorageError(ScanError):
    """Results cannot be written; the subject names the file."""
