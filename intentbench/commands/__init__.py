"""The commands, a module each: `add_arguments(parser)` and `run(options)`, the exit status.

They are all imported at every start: what is slow to load is imported by `run`.
"""
