"""WebShop: buy, in a text shop, the product that an instruction describes.

An in-process port of WebShop (Yao et al., NeurIPS 2022): its pages' text, action grammar, search
ranking and reward are the original's to the character and the digit, without HTML, a web server or
Java. Products come from the embedded catalogue, or from the official files: imported once into a
memory-mapped folder, or by path.

| files | what |
|---|---|
| `catalogue`, `goals`, `splits`, `dataset` | products, goals, train/dev/test, all together |
| `embedded`, `stored`, `official` | where a dataset comes from |
| `import_data`, `importer`, `json_stream`, `attributes_table`, `nouns`, `columns` | the import |
| `analyzer`, `porter`, `postings`, `search` | Lucene's analyzer, BM25 index and ranking |
| `pages`, `views`, `history` | a page's text nodes, and how an agent reads them |
| `shop`, `game`, `reward` | what games share, transitions between pages, the purchase |
| `tasks`, `goal_filter`, `prompts` | which goals are played, and how an agent is addressed |
| `sessions`, `gym` | the original's interface and Gymnasium's |

This file ties them to the `Env` protocol.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

from eef_jax.envs._prompt import Preset, split_limits
from eef_jax.envs.webshop import official, stored
from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.envs.webshop.game import ShopGame
from eef_jax.envs.webshop.goal_filter import filter_splits
from eef_jax.envs.webshop.importer import Sources
from eef_jax.envs.webshop.prompt_file import preset as find_preset
from eef_jax.envs.webshop.shop import Shop, search_index
from eef_jax.envs.webshop.splits import SPLITS, SplitPlan
from eef_jax.envs.webshop.tasks import split_tasks
from eef_jax.envs.webshop.views import ViewOptions, view_options
from eef_jax.errors import ConfigError
from eef_jax.types import Message, Task

__all__ = ["WebShop", "make"]


def make(
    *,
    data_dir: str = "",
    products: str = "",
    attributes: str = "",
    human_instructions: str = "",
    title_nouns: str = "",
    max_products: int = 0,
    seed: int = 0,
    splits: str = "products",
    goals_per_product: int = 1,
    train_indices: str = "",
    dev_indices: str = "",
    test_indices: str = "",
    train_tasks: int = 0,
    dev_tasks: int = 0,
    test_tasks: int = 0,
    goal_filter: str = "",
    prompt: str = "action",
    observation_mode: str = "text",
    show_attributes: bool = False,
    num_prev_obs: int = 0,
    num_prev_actions: int = 0,
    max_steps: int = 0,
) -> "WebShop":
    """Make the environment: on an imported dataset, on the official files, or on the embedded shop.

    Args:
        data_dir: path of a folder made by `python -m eef_jax.envs.webshop.import_data`; "": none.
        products: path of `items_shuffle*.json`, imported at each start (for large files import them
            once and give `data_dir`); "": none. Without `products` and `data_dir` the embedded
            catalogue is used; it is pinned, its splits too, and the arguments from `attributes` to
            `test_indices` have no effect.
        attributes: path of `items_ins_v2*.json`; required with `products`.
        human_instructions: path of `items_human_ins*.json`; with it the goals are what people
            wrote; "": goals are synthetic.
        title_nouns: path of a JSON object from title to nouns; "": the reward's title score
            compares all words of titles but stop words.
        max_products: number of rows of the products file to read, the first ones; 0: all.
        seed: of hidden prices and price bounds (with `products`), and of the splits that are drawn.
        splits: `products` (no product in two splits), `original` or `shuffled`; ignored if an index
            file is given.
        goals_per_product: goals drawn for each product by `splits="products"`; 0: all.
        train_indices: path of a JSON list of goal numbers, the `train` split; "": none. If at least
            one index file is given, splits without one are empty.
        dev_indices: path of a JSON list of goal numbers, the `dev` split; "": none.
        test_indices: path of a JSON list of goal numbers, the `test` split; "": none.
        train_tasks: number of tasks of `train`, its first ones; 0: all.
        dev_tasks: number of tasks of `dev`, its first ones; 0: all.
        test_tasks: number of tasks of `test`, its first ones; 0: all.
        goal_filter: conditions on the goals that are tasks, such as `"category=fashion"`, joined by
            `;`; "": all goals.
        prompt: name of a preset (`action`, `react` or `admissible`), or path of a prompt file.
        observation_mode: `text` (pieces joined by ` [SEP] `), `text_rich` (one piece a line, marked
            buttons) or `url`.
        show_attributes: whether item pages have an Attributes button, which shows hidden labels.
        num_prev_obs: number of earlier observations prepended to each observation; 0: none.
        num_prev_actions: number of earlier actions prepended to each observation; 0: none.
        max_steps: default cap on an agent's actions; 0: the prompt's, 10 for `react`, else 15.

    Raises:
        ConfigError: a name is unknown, or arguments are given that need others.
        DataError: a file is missing, damaged, or of another kind; no goal is left.
    """
    preset = find_preset(prompt)
    view = view_options(
        show_attrs=show_attributes,
        observation_mode=observation_mode,
        num_prev_obs=num_prev_obs,
        num_prev_actions=num_prev_actions,
    )
    indices = {"train": train_indices, "dev": dev_indices, "test": test_indices}
    plan = SplitPlan(
        kind=splits,
        seed=seed,
        goals_per_product=goals_per_product,
        files={split: path for split, path in indices.items() if path},
    )
    sources = Sources(
        products=products,
        attributes=attributes,
        human_instructions=human_instructions,
        title_nouns=title_nouns,
        seed=seed,
        max_products=max_products,
    )
    official.check_sources(data_dir, sources, plan)
    if data_dir:
        dataset = stored.load(data_dir, plan)
    elif products:
        dataset = official.load(sources, plan)
    else:
        dataset = _embedded()
    if goal_filter:
        dataset = filter_splits(dataset, goal_filter)
    limits = split_limits(train_tasks=train_tasks, dev_tasks=dev_tasks, test_tasks=test_tasks)
    return WebShop(dataset, preset, limits=limits, view=view, max_steps=max_steps)


class WebShop:
    """The `Env` over one dataset (see `eef_jax.envs.base.Env`); make it with `make`.

    Args:
        dataset: products, goals, prices and splits.
        preset: the prompt convention.
        limits: tasks taken of each split; 0 or absent: all.
        view: how pages are shown.
        max_steps: default cap on an agent's actions; 0: the preset's.
    """

    name = "webshop"

    def __init__(
        self,
        dataset: Dataset,
        preset: Preset,
        *,
        limits: dict[str, int],
        view: ViewOptions,
        max_steps: int,
    ):
        self.max_steps = max_steps or preset.max_steps
        self.dataset = dataset
        self.dataset_id = _identify(dataset, view, preset)
        self._preset = preset
        self._view = view
        self._limits = limits

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of `train`, `dev` or `test`, in a fixed order.

        Raises:
            ConfigError: there is no such split.
        """
        if split not in SPLITS:
            raise ConfigError(f"unknown split {split!r} of webshop; known: {', '.join(SPLITS)}")
        return split_tasks(self.dataset, split, self._limits.get(split, 0))

    def prompt(self, task: Task) -> tuple[Message, ...]:
        """Return the messages before the first observation; they do not depend on the task."""
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

    def game(self) -> ShopGame:
        """A new game; the first one of a dataset builds its search index."""
        return ShopGame(self.shop)

    def close(self) -> None:
        """Nothing to free: the dataset goes with its last user."""

    @functools.cached_property
    def shop(self) -> Shop:
        """What all games share."""
        return Shop(
            dataset=self.dataset,
            index=search_index(self.dataset),
            view=self._view,
            prefix=self._preset.observation,
            listing=self._preset.listing,
        )


@functools.cache
def _embedded() -> Dataset:
    """The embedded catalogue, read once in a process, so that its index is built once too."""
    from eef_jax.envs.webshop import embedded  # not at the top: it imports this package's files

    return embedded.load()


def _identify(dataset: Dataset, view: ViewOptions, preset: Preset) -> str:
    """Hash of all that decides tasks, observations and rewards."""
    shown = (*dataclasses.astuple(view), preset.observation, preset.listing)
    return hashlib.sha256(f"{dataset.dataset_id} {shown}".encode()).hexdigest()
