"""Every failure that the scan can name, each with what was expected, what came and what to do.

ScanError                 exit 1
├── UserMistake           exit 2: settings or input are wrong, one line and no traceback
│   └── InputError        a recording, a file or a folder cannot be used
├── FocusError            no focus surface can be found
├── CaptureError          a microscope did not deliver a batch
└── StorageError          results cannot be written: the disk is full, or the folder is gone

The four parts stay in ``args``, so an error that crosses Ray arrives with its type and its fields.
"""


class ScanError(Exception):
    """A failure told in four parts.

    Parameters
    ----------
    subject : str
        The file, setting or device it is about.
    expected, came : str
        What the program counted on, and what it met instead.
    advice : str
        What the reader can do.
    """

    exit_code = 1

    def __init__(self, subject: str, expected: str, came: str, advice: str) -> None:
        super().__init__(subject, expected, came, advice)

    @property
    def subject(self) -> str:
        """The file, setting or device that the error is about."""
        return str(self.args[0])

    def __str__(self) -> str:
        subject, expected, came, advice = self.args
        return f"{subject}: expected {expected}, got {came}; {advice}"


class UserMistake(ScanError):
    """Settings or input are wrong: told in one line, nothing is written."""

    exit_code = 2


class InputError(UserMistake):
    """A recording, a file or a folder cannot be used; the subject names it."""


class FocusError(ScanError):
    """No focus surface can be found; the scan cannot begin."""


class CaptureError(ScanError):
    """A microscope did not deliver a batch; the subject names the device or the field."""


class StorageError(ScanError):
    """Results cannot be written; the subject names the file."""
