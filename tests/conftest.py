"""One local Ray for the whole session; pure tests never ask for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import cluster.environment  # noqa: F401  (before Ray, which reads it)

os.environ["RAY_AUTH_MODE"] = "disabled"  # no token file in the user's home


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
