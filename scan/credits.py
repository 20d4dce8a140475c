"""Credits: each is the room of one batch in the object store; the driver holds them all."""

from dataclasses import dataclass, field

from scan.errors import UserMistake

MAX_CREDITS = 1_000  # small batches: each that waits costs the driver 60 kB


@dataclass
class Credits:
    """How many batches may exist at once, and how many do."""

    total: int
    taken: int = field(default=0, init=False)
    peak: int = field(default=0, init=False)

    @property
    def left(self) -> int:
        """Number of batches that may still be requested."""
        return self.total - self.taken

    def take(self) -> None:
        """Take a credit for a capture that is about to be submitted."""
        if not self.left:
            raise ValueError(f"expected a credit to be left, got all {self.total} taken")
        self.taken += 1
        self.peak = max(self.peak, self.taken)

    def release(self) -> None:
        """Return a credit when a batch is stacked or lost."""
        if not self.taken:
            raise ValueError("expected a taken credit, got none taken; a batch was counted twice")
        self.taken -= 1


def credits_for(store_bytes: int, fraction: float, batch_bytes: int, cameras: int) -> Credits:
    """Return the credits for batches of `batch_bytes` in a fraction of the object store.

    Each camera needs one, or it would wait until another camera's batch is stacked. Of very small
    batches there are no more than waiting calls that the driver can hold with ease.
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
    return Credits(min(total, max(MAX_CREDITS, cameras)))
