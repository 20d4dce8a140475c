"""One local Ray for the whole session; pure tests never ask for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

import cluster.environment  # noqa: F401  (before Ray, which reads it)

os.environ["RAY_AUTH_MODE"] = "disabled"  # no token file in the user's home


# The longest modules come first, so that no process is left with one of them at the end.
LONGEST = ("test_cluster", "test_faults", "test_docs", "test_program", "test_micromanager")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))


def pytest_sessionstart() -> None:
    """Compile before the first test, shared among the processes of a parallel session."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        from prediction.classic import Classic
        from prediction.warm_up import compile_kernels

        compile_kernels(Classic(), np.dtype(np.uint16))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray with two CPU slots and a small object store, never a user's running cluster."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200 * 10**6,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()
