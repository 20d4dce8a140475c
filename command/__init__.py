"""The command line, and what the program says and returns around a run.

`program`        what `python main.py` does, in messages and exit codes
`command_line`   options of the call, then one option for each setting
"""
