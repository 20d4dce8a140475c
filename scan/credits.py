"""Credits: each is one batch's worth of room in the object store, and the driver holds them all."""

from dataclasses import dataclass, field

from scan.errors import UserMistake


@dataclass
class Credits:
    """How many batches may be alive, and how many are."""

    total: int
    taken: int = field(default=0, init=False)
    peak: int = field(default=0, init=False)

    @property
    def left(self) -> int:
        """Batches that may still be asked for."""
        return self.total - self.taken

    def take(self) -> None:
        """Take one for a capture that is about to be asked for."""
        if not self.left:
            raise ValueError(f"expected a credit to be left, got all {self.total} taken")
        self.taken += 1
        self.peak = max(self.peak, self.taken)

    def release(self) -> None:
        """Give one back when a batch is stacked, or lost."""
        if not self.taken:
            raise ValueError("expected a taken credit, got none taken; a batch was counted twice")
        self.taken -= 1


def credits_for(store_bytes: int, fraction: float, batch_bytes: int, cameras: int) -> Credits:
    """Credits for batches of `batch_bytes` in that fraction of the object store.

    Every camera needs one, or it would wait for another's batch to be stacked.
    """
    total = int(store_bytes * fraction) // batch_bytes
    if total < cameras:
        raise UserMistake(
            "object_store_mb",
            f"room for {cameras} batches of {batch_bytes / 1e6:.0f} MB "
            f"in {fraction:.0%} of the object store",
            f"{store_bytes / 1e6:.0f} MB, which holds {total}",
            "give Ray a larger object store, or take fewer stripes, fewer planes or smaller fields",
        )
    return Credits(total)
