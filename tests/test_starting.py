"""What may differ when a run is started again: every field of each kind, by its declaration.

A *free* field may have another value: the stages' bits stay. A *numerics* field changes the last
bits of float sums, within the tolerance below. A new field fails here until it is given a value.
"""

import os

import numpy as np
import pytest
from orbax.checkpoint.experimental import v1 as ocp

from benchmarks.faults import compare
from eef_jax import config as config_lib
from eef_jax import pipeline, plugins
from eef_jax.config import fields, plugin
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.storage import provenance
from eef_jax.storage.stages import KINDS
from eef_jax.storage.trajectories import read_trajectories
from eef_jax.storage.workdir import CONFIG
from tests import toybase
from tests.policies import chatserver

# Another value than the toy run's for each free field; plug-ins' by plug-in.
FREE = {
    "rollout.concurrency": "1",
    "rollout.env_threads": "1",
    "rollout.env_timeout_s": "7",
    "rollout.env_attempts": "1",
    "rollout.max_observation": "50000",
    "rollout.max_failures": "1",
    "train.save_every_s": "0.01",
    "train.save_every_steps": "1",
}
FREE_OF_JVMS = {"env.jvms": "1", "env.timeout_s": "77"}
FREE_OF_OPENAI = {
    "expert.base_url": "another server's",
    "expert.key_variable": "OTHER_KEY",
    "expert.timeout_s": "33",
    "expert.retries": "1",
    "expert.max_wait_s": "9",
    "expert.concurrency": "2",
    "expert.requests_per_minute": "60000",
    "expert.input_price": "3",
    "expert.cached_price": "1",
    "expert.output_price": "9",
    "expert.budget": "100",
}
# The same for numerics: meshes of the eight devices that tests have, and other sizes and programs.
NUMERICS = {
    "mesh.data": "1",
    "mesh.fsdp": "2",
    "mesh.tensor": "2",
    "mesh.context": "2",
    "rollout_mesh.data": "2",
    "rollout_mesh.fsdp": "2",
    "rollout_mesh.tensor": "1",
    "rollout_mesh.context": "2",
    "engine.max_num_seqs": "3",
    "engine.page_size": "32",
    "engine.num_pages": "99",
    "engine.prefill_tokens": "128",
    "engine.prefill_seqs": "2",
    "engine.prefill_chunk": "32",
    "engine.decode_steps": "1",
    "engine.attention": "gathered",
    "train.micro_batch": "2",
    "train.remat": "block",
    "model.scan_layers": "True",
}
ELSEWHERE = {"model.attention"}  # a CPU has one; tests/kernels compares the others with it

# docs/reliability.md states these, for float32.
PARAMETERS = 1e-5  # of the norm of a tuned tensor
LOGPROBS = 1e-5


def declared(kind):
    """The fields of a kind: those that every run has, and those of plug-ins by their plug-in."""
    common = {
        path for path, one, _ in config_lib.walk(config_lib.Config()) if one.spec.kind == kind
    }
    own = {}
    for section, family in plugin.FAMILIES.items():
        for name in plugins.available(family):
            found = fields.fields(plugin.declared(section, name))
            paths = {f"{section}.{one.name}" for one in found if one.spec.kind == kind}
            if paths:
                own[f"{section}.{name}"] = paths
    return common, own


def test_every_field_has_another_value_here():
    common, own = declared("free")
    assert common == set(FREE)
    assert own.pop("expert.openai") == set(FREE_OF_OPENAI)
    assert set(own) == {"env.scienceworld", "env.textworld_express"}
    assert all(paths == set(FREE_OF_JVMS) for paths in own.values())
    assert declared("numerics") == (set(NUMERICS) | ELSEWHERE, {})


def changed(config, changes):
    """The config with other values, which must be others."""
    values = {path: value for path, _, value in config_lib.walk(config)}
    other = config_lib.override(config_lib.plain(config), list(changes.items()))
    assert not [p for p, _, value in config_lib.walk(other) if p in changes and value == values[p]]
    return other


def assert_equal_bits(config, changes, finished, tmp_path, stages=KINDS):
    """Play with all changes together; where anything differs, find out which one it comes from."""

    def differing(some):
        folder = tmp_path / "-".join(some)[:60]
        pipeline.run(changed(config, some), os.fspath(folder), stages=stages)
        return [name for name in compare.differences(finished, folder) if name != CONFIG]

    if differing(changes):
        found = {path: differing({path: value}) for path, value in changes.items()}
        pytest.fail(f"not free: { {path: names for path, names in found.items() if names} }")


@pytest.fixture(scope="module", autouse=True)
def commit():
    """The same in all runs, whatever is done in the checkout meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "_commit", lambda: "abc")
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    # At temperature 0 a token's log-probability is 0, whatever the sums are.
    base = toybase.make(tmp_path_factory.mktemp("base"))
    return toybase.config(base, ("evaluate.temperature", "1.0"))


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    pipeline.run(config, os.fspath(folder))
    return folder


@pytest.mark.slow
def test_free_fields_change_no_bit(config, finished, tmp_path):
    assert_equal_bits(config, FREE, finished, tmp_path)


def test_free_fields_of_a_served_expert_change_no_bit(config, tmp_path, monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "x")
    with chatserver.serve() as one, chatserver.serve() as other:
        for server in (one, other):
            server.otherwise = lambda asked: chatserver.reply(
                f"search[{len(asked['messages'][-1]['content'])}]"
            )
        changes = {"expert.name": "openai", "expert.model": "m", "expert.base_url": one.url}
        served = config_lib.override(config_lib.plain(config), list(changes.items()))
        pipeline.run(served, os.fspath(tmp_path / "finished"), stages=("expert",))
        free = FREE_OF_OPENAI | {"expert.base_url": other.url}
        assert_equal_bits(served, free, tmp_path / "finished", tmp_path, stages=("expert",))
        assert other.requests


SIMULATORS = {
    "scienceworld": {"env.tasks": "find-plant"},
    "textworld_express": {"env.games": "coin"},
}
ACTIONS = ("look around", "inventory", "open door to kitchen", "look around")


@pytest.mark.java
@pytest.mark.parametrize(
    "env",
    [
        pytest.param("textworld_express", marks=pytest.mark.slow),
        pytest.param("scienceworld", marks=pytest.mark.load),  # half a minute of CPU time
    ],
)
def test_free_fields_of_simulators_change_no_bit(env, tmp_path, recycled_jvms, monkeypatch):
    # Simulators do not give the same solution (`gold`) at every request, whatever the fields are.
    expert = ScriptedPolicy(lambda request: ACTIONS[request.turn], name="fixed")
    monkeypatch.setattr("eef_jax.experts.gold.make", lambda *_, **__: expert)
    sizes = {"env.train_tasks": "2", "env.dev_tasks": "1", "env.test_tasks": "1", "env.jvms": "2"}
    values = config_lib.new(env=env, expert="gold").to_dict()
    changes = {**sizes, **SIMULATORS[env], "env.max_steps": str(len(ACTIONS))}
    config = config_lib.override(values, list(changes.items()))
    finished = tmp_path / "finished"
    pipeline.run(config, os.fspath(finished), stages=("expert",))
    assert_equal_bits(config, FREE_OF_JVMS, finished, tmp_path, stages=("expert",))


def parameters(run):
    folder = (run / "round_0/tune/checkpoint").resolve()
    stored = ocp.checkpointables_metadata(folder).metadata
    arrays = ocp.load_checkpointables(folder, {"trainable": stored["trainable"]})["trainable"]
    return {name: np.asarray(value, np.float64) for name, value in arrays.items()}


def logprobs(run):
    """Tokens and their log-probabilities, by episode and step."""
    return {
        (trajectory.id, number): (step.tokens, np.asarray(step.logprobs))
        for trajectory in read_trajectories(run / "round_0/evaluate")
        for number, step in enumerate(trajectory.steps)
    }


@pytest.mark.slow
def test_numerics_change_the_last_bits_alone(config, finished, tmp_path):
    other = changed(config, NUMERICS)
    run = tmp_path / "run"
    pipeline.run(other, os.fspath(run), stages=("expert", "select", "tune", "evaluate"))
    before, after = parameters(finished), parameters(run)
    assert before.keys() == after.keys()
    moved = {n: np.linalg.norm(after[n] - x) / np.linalg.norm(x) for n, x in before.items()}
    assert 0 < max(moved.values()) <= PARAMETERS
    before, after = logprobs(finished), logprobs(run)
    assert before.keys() == after.keys()
    for place, (tokens, values) in before.items():
        assert after[place][0] == tokens  # none of this run's choices is a close one
        np.testing.assert_allclose(after[place][1], values, rtol=0, atol=LOGPROBS)
