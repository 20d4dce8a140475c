"""What the driver process does around the workflow of `main.py`, in the order in which to read it.

`steps`         the remote calls that the workflow is made of, as types, and how they can end
`pending`       the calls in flight: wait, restart cameras, submit again after a lost node
`autofocus`     focus sweeps
`loop`          what follows when a step ends, and one policy for each kind of failure
`run`           the life of a run: folder, checkpoint, Ray, workflow, summary
`setup`, `checkpoint`   what is scanned, and what earlier runs left of it
`signals`       what stops a run
"""

import cluster.environment  # noqa: F401  (before Ray, which reads it)
from driver.run import run_scan

__all__ = ["run_scan"]
