"""WebShop: buy, in a text shop, the product that an instruction describes.

An in-process port of WebShop (Yao et al., NeurIPS 2022): its pages' text, action grammar, search
ranking and reward are the original's to the character and the digit, without HTML, a web server or
Java. Products come from the embedded catalogue, or from the official files by path.

Files: `catalogue` (products), `goals`, `dataset` (both, pinned), `official` and `embedded` (where a
dataset comes from), `analyse`, `porter` and `search` (ranking), `pages` (texts), `reward`, `game`
(transitions), `prompts` (how an agent is spoken to). This file ties them to the `Env` protocol and
knows nothing of models.
"""

import functools
import hashlib
import json
from collections.abc import Sequence

from eef_jax.envs.webshop import official, prompts
from eef_jax.envs.webshop.dataset import SPLITS, Dataset
from eef_jax.envs.webshop.game import Game, Shop, index_of
from eef_jax.errors import ConfigError
from eef_jax.types import Message, Task

__all__ = ["WebShop", "make"]


def make(
    *,
    products: str = "",
    attributes: str = "",
    human: str = "",
    nouns: str = "",
    seed: int = 0,
    goals_per_product: int = 1,
    max_products: int = 0,
    train_tasks: int = 0,
    dev_tasks: int = 0,
    test_tasks: int = 0,
    prompt: str = "action",
    show_attributes: bool = False,
    max_steps: int = 15,
) -> "WebShop":
    """Make the environment, on the embedded catalogue or (with `products`) on the official files.

    Args:
        products: path of `items_shuffle*.json`; "": the embedded catalogue, which is pinned already
            and reads none of the next six.
        attributes: path of `items_ins_v2*.json`; needed with `products`.
        human: path of `items_human_ins*.json`: goals are then the human ones, else synthetic ones.
        nouns: path of a JSON object from title to nouns; without it, rewards differ a little.
        seed: decides hidden prices, price bounds and splits of the official files.
        goals_per_product: goals drawn for each product of the official files; 0: all.
        max_products: only read this many first rows of the products file; 0: all.
        train_tasks: only the first so many tasks of the split; 0: all.
        dev_tasks: likewise.
        test_tasks: likewise.
        prompt: preset of `prompts`: `action` or `react`.
        show_attributes: whether item pages have an Attributes button, which tells the labels.
        max_steps: default cap on an agent's actions.

    Raises:
        ConfigError: `prompt` is unknown, or `products` and `attributes` are not given together.
        DataError: a file is missing, damaged, or of another kind.
    """
    preset = prompts.preset(prompt)
    if bool(products) != bool(attributes) or (not products and (human or nouns)):
        raise ConfigError(
            f"env.products={products!r}, env.attributes={attributes!r}: official files need both, "
            "and so do env.human and env.nouns; give none of them for the embedded catalogue"
        )
    if products:
        dataset = official.load(
            products=products,
            attributes=attributes,
            human=human,
            nouns=nouns,
            seed=seed,
            goals_per_product=goals_per_product,
            max_products=max_products,
        )
    else:
        dataset = _embedded()
    limits = {"train": train_tasks, "dev": dev_tasks, "test": test_tasks}
    return WebShop(
        dataset, preset, limits=limits, show_attributes=show_attributes, max_steps=max_steps
    )


class WebShop:
    """The `Env` over one dataset (see `eef_jax.envs.base.Env`); make it with `make`.

    Args:
        dataset: products, goals, prices and splits.
        preset: how the agent is spoken to.
        limits: tasks taken of each split; 0 or absent: all.
        show_attributes: whether item pages have an Attributes button.
        max_steps: default cap on an agent's actions.
    """

    name = "webshop"

    def __init__(
        self,
        dataset: Dataset,
        preset: prompts.Preset,
        *,
        limits: dict[str, int],
        show_attributes: bool,
        max_steps: int,
    ):
        self.max_steps = max_steps
        self.dataset = dataset
        self.dataset_id = _identify(dataset, show_attributes)
        self._preset = preset
        self._show_attributes = show_attributes
        self._tasks = {split: _tasks(dataset, split, limits.get(split) or None) for split in SPLITS}

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of `train`, `dev` or `test`, in a fixed order.

        Raises:
            ConfigError: there is no such split.
        """
        if split not in self._tasks:
            raise ConfigError(f"unknown split {split!r} of webshop; known: {', '.join(SPLITS)}")
        return self._tasks[split]

    def prompt(self, task: Task) -> tuple[Message, ...]:
        """Messages before the first observation; they do not depend on the task."""
        return self._preset.messages

    def parse(self, message: str) -> str | None:
        """The action in a message, or None."""
        return self._preset.parse(message)

    def render(self, action: str) -> str:
        """A message that says `action`."""
        return self._preset.render(action)

    def invalid(self, message: str) -> str:
        """What an agent reads after a message without an action."""
        return self._preset.invalid

    def is_win(self, reward: float) -> bool:
        """Whether the purchase was all that was asked for."""
        return reward >= 1.0

    def game(self) -> Game:
        """A new game; the first one of a dataset builds its search index."""
        return Game(self._shop)

    def close(self) -> None:
        """Nothing to free: the dataset goes with its last user."""

    @functools.cached_property
    def _shop(self) -> Shop:
        return Shop(
            dataset=self.dataset,
            index=index_of(self.dataset),
            show_attributes=self._show_attributes,
            prefix=self._preset.observation,
        )


@functools.cache
def _embedded() -> Dataset:
    """The embedded catalogue, read once in a process, so that its index is built once too."""
    from eef_jax.envs.webshop import embedded  # not at the top: it imports this package's files

    return embedded.load()


def _tasks(dataset: Dataset, split: str, limit: int | None) -> tuple[Task, ...]:
    return tuple(
        Task(
            id=f"webshop/{split}/{place}",
            env="webshop",
            split=split,
            goal=dataset.goals[number].instruction,
            payload=json.dumps({"goal": number}),
            tags=dataset.goals[number].tags,
        )
        for place, number in enumerate(dataset.splits[split][:limit])
    )


def _identify(dataset: Dataset, show_attributes: bool) -> str:
    return hashlib.sha256(f"{dataset.dataset_id} {show_attributes}".encode()).hexdigest()
