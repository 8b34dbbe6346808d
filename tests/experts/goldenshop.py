"""The synthetic catalogue in the official format, as an environment for tests of experts."""

from eef_jax.envs import webshop
from eef_jax.rollout import loop, play
from tests.envs.webshop import golden


def make(**settings):
    """A shop of 200 products; 55 train tasks."""
    files = {
        "products": str(golden.PRODUCTS),
        "attributes": str(golden.ATTRIBUTES),
        "title_nouns": str(golden.NOUNS),
    }
    return webshop.make(webshop.Config(**files, **settings))


def play_all(env, policy, tasks=None):
    """The policy's trajectories on the first train tasks."""
    episodes = play.from_start(env.tasks("train")[:tasks], env.max_steps, prefix="expert")
    return loop.play_episodes_sync(env, policy, episodes, source="expert", progress=False)
