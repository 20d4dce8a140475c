"""Ray as a machine: start or join it, find nodes, share storage, set priorities, name failures.

`cluster.environment` comes before Ray: some of its variables are read when Ray is imported.
"""
