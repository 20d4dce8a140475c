"""What frames are corrected for, and what the journal says of it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class Correction(NamedTuple):
    """Fields of the size of a frame; None where nothing is corrected.

    Attributes
    ----------
    flat : (y, x) float32, or (c, y, x) of several channels
        Light on the camera relative to its mean, which is 1.
    dark : (y, x) float32
        The camera's signal without light, in grey levels.
    defects : (y, x) bool
        Pixels that get the light of those around.
    """

    flat: NDArray[np.float32] | None = None
    dark: NDArray[np.float32] | None = None
    defects: NDArray[np.bool_] | None = None

    def __bool__(self) -> bool:
        return any(each is not None for each in self)

    def of_channel(self, number: int) -> "Correction":
        """Return the correction of the frames of one channel."""
        if self.flat is None or self.flat.ndim < 3:
            return self
        return self._replace(flat=self.flat[number])

    def part(self, rows: slice, columns: slice) -> "Correction":
        """Return the correction of a part of each frame."""
        parts = {k: v[rows, columns] for k, v in self._asdict().items() if v is not None}
        return Correction(**parts)


@dataclass(frozen=True)
class CorrectionRecord:
    """The correction of a run, whose fields lie in its folder.

    Attributes
    ----------
    flat : str
        Where the flat is from: "file", "estimate", or "" if there is none.
    degree, places, scatter :
        Of an estimate: degree of its polynomial, frames used, and the relative difference, root
        mean square, between flats of two thirds of them and of the others.
    specks, defects :
        What the camera shows at the same pixels of every field: number of specks, and their share
        of the frame. It is in a file if it is filled by the light around.
    files : tuple of (name, crc32)
        The fields in the run folder.
    """

    flat: Literal["", "file", "estimate"] = ""
    degree: Count = 0
    places: Count = 0
    scatter: Share = 0.0
    specks: Count = 0
    defects: Share = 0.0
    files: tuple[tuple[Annotated[str, Field(pattern=r"^\w+\.tif$")], Count], ...] = ()


NO_FIELDS = Correction()
UNCORRECTED = CorrectionRecord()
Learned = tuple[Correction, dict[str, Any]]  # what is known of a correction before it is written
