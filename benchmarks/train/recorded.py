"""Trajectories to measure training on: those of the scripted expert on the embedded catalogue.

Deterministic and without network access: the catalogue ships with the package.
"""

from eef_jax import config as config_lib
from eef_jax.configs import webshop
from eef_jax.data import encode
from eef_jax.rollout import play
from eef_jax.text.chat import ChatTokenizer
from eef_jax.types import KEPT_ALL, Example, Selection


def record(model: str, count: int) -> list[Example]:
    """Play the first train tasks with the expert and encode them; all its messages are learned.

    Args:
        model: Hugging Face folder of the tokenizer and chat template to encode with.
        count: number of tasks; there are 600 train tasks.
    """
    config = config_lib.read(webshop.get_config("demo").to_dict())
    env = config_lib.make("env", config.env)
    try:
        expert = config_lib.make("expert", config.expert, env=env)
        episodes = play.from_start(
            env.tasks("train")[:count], env.max_steps, prefix=f"expert/{expert.name}"
        )
        played = play.play(
            env, expert, episodes, config.rollout, label="expert", source="expert", progress=False
        )
    finally:
        env.close()
    selections = [
        Selection(
            trajectory=trajectory,
            weights=(1.0,) * len(trajectory.steps),
            reasons=(KEPT_ALL,) * len(trajectory.steps),
            role="recorded",
        )
        for trajectory in played
    ]
    chat = ChatTokenizer.load(model)
    examples, counts = encode.encode_all(
        selections, env.prompt, chat, encode.Options(max_length=1 << 20)
    )
    assert counts.examples == count, counts
    return examples
