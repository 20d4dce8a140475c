"""Credits: each is the room of one batch in the object store; the driver holds them all."""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field

from scan.errors import UserMistake

MAX_CREDITS = 1_000  # small batches: each that waits costs the driver 60 kB


@dataclass
class Credits:
    """How many batches may exist at once, and how many do.

    Images that wait for their place need room, too: each takes `image_share` of that of a batch.
    One batch may always exist besides them, because they wait for other fields.
    """

    total: int
    image_share: float = 0.0
    taken: int = field(default=0, init=False)
    peak: int = field(default=0, init=False)
    images: set[Hashable] = field(default_factory=set, init=False)

    @property
    def left(self) -> int:
        """Number of batches that may still be requested."""
        left = self.total - self.taken - math.ceil(len(self.images) * self.image_share)
        return max(left, 1) if self.images and not self.taken else left

    def take(self) -> None:
        """Take a credit for a capture that is about to be submitted."""
        if self.taken >= self.total:
            raise ValueError(f"expected a credit to be left, got all {self.total} taken")
        self.taken += 1
        self.peak = max(self.peak, self.taken)

    def release(self, of: Hashable = None) -> None:
        """Return the credit of a batch that is stacked or lost, or the room of a field's image."""
        if of in self.images:
            self.images.remove(of)
            return
        if not self.taken:
            raise ValueError("expected a taken credit, got none taken; a batch was counted twice")
        self.taken -= 1

    def keep_image(self, of: Hashable) -> None:
        """A field's batch is stacked, and its image waits for its place."""
        self.release()
        self.images.add(of)


def credits_for(
    store_bytes: int, fraction: float, batch_bytes: int, cameras: int, image_bytes: int = 0
) -> Credits:
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
    return Credits(min(total, max(MAX_CREDITS, cameras)), image_bytes / batch_bytes)
