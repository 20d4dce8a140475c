"""The environment variables that configure Ray, for the program, its tests and its benchmarks.

Importing this module sets those that are not set yet. Import it before Ray.
"""

import os

RAY_ENVIRONMENT = {
    # seconds for which Ray tries to connect; read when Ray is imported
    "RAY_NUM_REDIS_GET_RETRIES": "6",
    # the driver handles failures itself, also those of frames whose record failed before
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # cameras run at niceness 0, stacking lowers itself
    "RAY_worker_niceness": "0",
    # no task needs a GPU
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # end calls to a node that fell silent: Ray gives it up after 65 s, but tests a connection that
    # awaits an answer only after 5 minutes. Nodes accept a test each minute; set a shorter time on
    # all of them, or they close the connections of this program
    "RAY_grpc_client_keepalive_time_ms": "65000",
    "RAY_grpc_client_keepalive_timeout_ms": "65000",
    # under `uv run` Ray would pack this folder and start each worker in an environment of its own
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # keep warm workers: starting and compiling one takes seconds
    "RAY_idle_worker_killing_time_threshold_ms": "3600000",
    # Ray keeps counters for each task name without limit: 50 MB per 1,000 fields
    "RAY_enable_metrics_collection": "false",
    "RAY_task_events_max_num_task_in_gcs": "10000",
    # a signal that stops the driver may stop Ray too, which then waits 5 s for its own reports
    "RAY_task_events_shutdown_flush_timeout_ms": "500",
}

for _name, _value in RAY_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
