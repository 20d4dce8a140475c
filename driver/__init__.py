"""What the driver process does around the workflow of `main.py`.

`steps`     the remote calls that the workflow is made of, as types
`pending`   the calls in flight: wait, submit again after a lost node or a dead worker
`cameras`   restart cameras that died or hang; shared by autofocus and scan
`autofocus` focus sweeps
`loop`      what follows when a step is done, and one policy for each kind of failure
`run`       the life of a run: settings, folder, checkpoint, Ray, summary
"""

import cluster.environment  # noqa: F401  (before Ray, which reads it)
from driver.run import run_scan

__all__ = ["run_scan"]
