"""The shipped ScienceWorld base reads made-up rooms and can play the demo untuned."""

import contextlib

import numpy as np
import pytest

from eef_jax import bases
from eef_jax import config as config_lib
from eef_jax.configs import scienceworld
from eef_jax.errors import ConfigError, EnvError
from eef_jax.learner.placement import Placement
from eef_jax.learner.sampling import Sampler
from eef_jax.rollout import loop
from eef_jax.types import Episode
from pretrain import probe

# Both compute for longer than they compile.
pytestmark = [pytest.mark.optimized, pytest.mark.slow]

TURNS = 3
# Lower bounds on the share of right answers; the model card has the shares over more questions.
LOWER_BOUNDS = {"a room": 0.6, "a goal": 0.85, "an order": 0.8}


@pytest.fixture
def demo():
    values = scienceworld.get_config("demo").to_dict()
    changes = [("env.jvms", "1"), ("env.timeout_s", "600")]
    changes += [("engine.max_num_seqs", "2"), ("engine.max_context", "512")]
    return config_lib.override(values, changes)


@pytest.fixture
def env(demo, recycled_jvms):
    try:
        made = config_lib.make("env", demo.env)
    except (ConfigError, EnvError) as error:
        pytest.skip(f"scienceworld: {error}")
    with contextlib.closing(made):
        yield made


@pytest.mark.parametrize("count", [8, pytest.param(16, marks=pytest.mark.load)])
def test_it_answers_unseen_questions(count, monkeypatch):
    monkeypatch.setattr(probe, "BATCH_SIZE", count)
    monkeypatch.setattr(probe, "MAX_TOKENS", 512)
    reader = probe.Reader(bases.find("nano:scienceworld"))
    asked = probe.questions("scienceworld", count)
    for skill, bound in LOWER_BOUNDS.items():
        right = reader.gives([(question.text, question.accepted[0]) for question in asked[skill]])
        assert np.mean(right) >= bound, skill


def test_it_plays_the_demo_preset(demo, env):
    task = env.tasks("train")[0]
    episodes = [
        Episode(id=f"{n}", task=task, round=0, attempt=n, max_steps=TURNS) for n in range(2)
    ]
    placement = Placement(demo)
    assert placement.path == bases.find("nano:scienceworld")
    with Sampler(placement, demo.engine).policy(None, demo.explore, seed=0) as policy:
        played = loop.play_episodes_sync(env, policy, episodes, env_threads=1, env_timeout_s=600.0)
    for trajectory in played:
        assert trajectory.outcome.completed
        assert all(step.action for step in trajectory.steps)
        assert len(trajectory.steps) == TURNS or trajectory.steps[-1].info["score"] < 0
