"""Simulators written in Java, in processes of their own: bounded, replaced when they fail.

Files: `process` (one JVM), `gateway` (calls into it), `pool` (a bounded number of them), `world`
(how a simulator is brought to a state) and `game` (any number of episodes over a pool). An
environment adds a `World`: how its simulator is started, stepped and read. Nothing here knows a
particular simulator, prompt or model.
"""
