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
from typing import Literal

from eef_jax.config.fields import check, field
from eef_jax.envs._prompt import Preset, split_limits
from eef_jax.envs.webshop import official, stored
from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.envs.webshop.game import ShopGame
from eef_jax.envs.webshop.goal_filter import filter_splits
from eef_jax.envs.webshop.importer import Sources
from eef_jax.envs.webshop.prompt_file import preset as find_preset
from eef_jax.envs.webshop.prompts import PRESETS
from eef_jax.envs.webshop.shop import Shop, search_index
from eef_jax.envs.webshop.splits import SPLITS, SplitPlan
from eef_jax.envs.webshop.tasks import GoalFinder, read_imported, split_tasks
from eef_jax.envs.webshop.views import ViewOptions, view_options
from eef_jax.errors import ConfigError
from eef_jax.types import Message, Task

__all__ = ["Config", "WebShop", "make"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The section `env` of WebShop.

    Without `data_dir` and `products` the shop is the embedded catalogue, unless `catalogue` says
    otherwise. It is pinned, its splits too, so it takes none of the fields up to `test_indices`.
    """

    catalogue: Literal["any", "official"] = field(
        "any",
        "any: the files that are given, else the embedded catalogue; official: refused without "
        "files",
    )
    data_dir: str = field(
        "", "folder that `python -m eef_jax.envs.webshop.import_data` made", path=True
    )
    products: str = field(
        "",
        "file items_shuffle*.json, imported anew by each process; better import it once",
        path=True,
    )
    attributes: str = field("", "file items_ins_v2*.json; needed with `products`", path=True)
    human_instructions: str = field(
        "", "file items_human_ins*.json: goals that people wrote; empty: synthetic goals", path=True
    )
    title_nouns: str = field(
        "",
        "JSON object from title to nouns; empty: the reward's title score compares all words but "
        "stop words",
        path=True,
    )
    max_products: int = field(0, "first rows of the products file to read; 0: all", at_least=0)
    seed: int = field(0, "of hidden prices, price bounds and drawn splits", at_least=0)
    splits: Literal["products", "original", "shuffled"] = field(
        "products", "how goals are split; products: no product is in two splits"
    )
    goals_per_product: int = field(
        1, "goals drawn for each product by splits=products; 0: all", at_least=0
    )
    train_indices: str = field(
        "",
        "JSON list of goal numbers; with one or more of these files, they are the splits",
        path=True,
    )
    dev_indices: str = field("", "JSON list of goal numbers of the dev split", path=True)
    test_indices: str = field("", "JSON list of goal numbers of the test split", path=True)
    train_tasks: int = field(0, "first tasks of the train split; 0: all", at_least=0)
    dev_tasks: int = field(0, "first tasks of the dev split; 0: all", at_least=0)
    test_tasks: int = field(0, "first tasks of the test split; 0: all", at_least=0)
    goal_filter: str = field("", "goals that are tasks, such as category=fashion; empty: all")
    prompt: str = field(
        "action",
        "prompt preset (action, react or admissible), or the path of a prompt file",
        path=True,
    )
    observation_mode: Literal["text", "text_rich", "url"] = field(
        "text", "how pages are written, as in the original"
    )
    show_attributes: bool = field(False, "item pages have a button that lists the attributes")
    num_prev_obs: int = field(0, "earlier observations repeated in each new one", at_least=0)
    num_prev_actions: int = field(0, "earlier actions repeated in each observation", at_least=0)
    imported_tasks: str = field(
        "",
        "folder that `python -m eef_jax.importers` made: its tasks are train tasks, and their "
        "products are in no other split",
        path=True,
    )
    max_steps: int = field(
        0, "cap on an agent's actions; 0: the prompt's, 10 for react, else 15", at_least=0
    )

    def __post_init__(self) -> None:
        check(self, "env")


def make(config: Config) -> "WebShop":
    """Make the environment: on an imported dataset, the official files, or the embedded shop.

    Raises:
        ConfigError: a name is unknown, or fields are set that need others.
        DataError: a file is missing, damaged, or of another kind; no goal is left.
    """
    preset = find_preset(config.prompt)
    view = view_options(
        show_attrs=config.show_attributes,
        observation_mode=config.observation_mode,
        num_prev_obs=config.num_prev_obs,
        num_prev_actions=config.num_prev_actions,
    )
    indices = {
        "train": config.train_indices,
        "dev": config.dev_indices,
        "test": config.test_indices,
    }
    plan = SplitPlan(
        kind=config.splits,
        seed=config.seed,
        goals_per_product=config.goals_per_product,
        files={split: path for split, path in indices.items() if path},
    )
    sources = Sources(
        products=config.products,
        attributes=config.attributes,
        human_instructions=config.human_instructions,
        title_nouns=config.title_nouns,
        seed=config.seed,
        max_products=config.max_products,
    )
    official.check_sources(config.data_dir, sources, plan)
    if config.catalogue == "official" and not (config.data_dir or config.products):
        raise ConfigError(
            "env.catalogue='official' without files: give --config.env.data_dir=FOLDER (made by "
            "python -m eef_jax.envs.webshop.import_data), or --config.env.products=FILE and "
            "--config.env.attributes=FILE; docs/webshop.md says where they come from"
        )
    if config.data_dir:
        dataset = stored.load(config.data_dir, plan)
    elif config.products:
        dataset = official.load(sources, plan)
    else:
        dataset = _embedded()
    if config.goal_filter:
        dataset = filter_splits(dataset, config.goal_filter)
    limits = split_limits(
        train_tasks=config.train_tasks, dev_tasks=config.dev_tasks, test_tasks=config.test_tasks
    )
    imported = read_imported(config.imported_tasks, dataset) if config.imported_tasks else ()
    return WebShop(
        dataset, preset, limits=limits, view=view, max_steps=config.max_steps, imported=imported
    )


class WebShop:
    """The `Env` over one dataset (see `eef_jax.envs.base.Env`); make it with `make`.

    Args:
        dataset: products, goals, prices and splits.
        preset: the prompt convention.
        limits: tasks taken of each split; 0 or absent: all.
        view: how pages are shown.
        max_steps: default cap on an agent's actions; 0: the preset's.
        imported: train tasks of an import, before the dataset's own.
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
        imported: Sequence[Task] = (),
    ):
        self.max_steps = max_steps or preset.max_steps
        self.dataset = dataset
        self.dataset_id = _identify(dataset, view, preset, imported)
        self._imported = imported
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
        return split_tasks(self.dataset, split, self._limits.get(split, 0), self._imported)

    def find_tasks(self, text: str) -> Sequence[Task]:
        """Goals that a page names, each with the price bound that the page tells."""
        return self._finder.find(text)

    def plain(self) -> "WebShop":
        """The shop in the observation mode `text`, without a prompt's additions."""
        return WebShop(
            self.dataset,
            PRESETS["action"],
            limits={},
            view=ViewOptions(show_attrs=self._view.show_attrs),
            max_steps=self.max_steps,
        )

    def prompt(self, task: Task) -> tuple[Message, ...]:
        """Return the messages before the first observation; they do not depend on the task."""
        return self._preset.messages

    @property
    def instructions(self) -> str:
        """What an untuned agent has to be told where `prompt` does not; else ""."""
        return self._preset.untold()

    def parse(self, message: str) -> str | None:
        """The action in a message, or None."""
        return self._preset.parse(message)

    def render(self, action: str, thought: str = "") -> str:
        """A message that says `action`, after `thought` where the prompt has thoughts."""
        return self._preset.render(action, thought)

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
    def _finder(self) -> GoalFinder:
        return GoalFinder(self.dataset)

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


def _identify(dataset: Dataset, view: ViewOptions, preset: Preset, imported: Sequence[Task]) -> str:
    """Hash of all that decides tasks, observations and rewards."""
    shown: tuple[object, ...] = (*dataclasses.astuple(view), preset.observation, preset.listing)
    if imported:
        shown = (*shown, *(task.id for task in imported))
    return hashlib.sha256(f"{dataset.dataset_id} {shown}".encode()).hexdigest()
