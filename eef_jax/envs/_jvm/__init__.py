"""Java simulators in subprocesses: a bounded pool of JVMs, episodes restored by replay.

Modules: `process` (one JVM), `gateway` (py4j calls into it), `simulator` (the protocol that an
environment implements), `pool` (a bounded number of JVMs), `replay` (bringing a simulator to a
state), `game` (any number of episodes over a pool) and `config` (fields that the sections of such
environments share). Independent of any particular simulator, prompt or model.
"""
