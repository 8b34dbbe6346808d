"""Trajectories of other people's experts: read, replayed in the environment, and kept where equal.

    python -m eef_jax.importers --config=... --format=eto --file=FILE --out=FOLDER

A format is one file (see `base`); `_replies` finds thought and action in a reply, `_replay` the
task of a conversation and whether the environment shows the same, `_command` is the command.
"""
