"""The data of a run on disk, in formats that other software reads.

`storage` hides whether a run is in a folder or in an object store. In it are the mosaics (`store`,
`ome_metadata`), the object table (`table`) and their `digest`; the `journal` records what happened,
and the `summary` is computed from it. `verification` checks the files of an interrupted run
before a resume. This package knows neither Ray nor image processing.
"""
