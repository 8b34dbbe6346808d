"""Simulators written in Java, in processes of their own: bounded, replaced when they fail.

Files: `process` (one JVM and the gateway to it), `pool` (a bounded number of them) and `game` (any
number of episodes over a pool, each of them a list of actions that can be played again). An
environment adds a `World`: how its simulator is started, stepped and read. Nothing here knows a
particular simulator, prompt or model.
"""
