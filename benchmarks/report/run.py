"""Size of the page of 10,000 trajectories, and times to first paint and to filter in Chromium.

    python -m benchmarks.report --trajectories=10000

The trajectories have 8 steps with pages of 800 characters of the embedded shop, which a random
shopper sees: a fifth are an expert's, half are forks of these, the rest are played from the start.
They stand in a work folder of a real config, so that the page is made as at the end of a run.
Needs the extra `test` and Chromium. A page in the file system's cache is opened.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from etils import epath

from benchmarks.common import machine, tables
from eef_jax import cli, report
from eef_jax import config as config_lib
from eef_jax.envs.base import Env
from eef_jax.errors import ConfigError
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.rollout import loop, play
from eef_jax.storage.trajectories import write_trajectories
from eef_jax.storage.workdir import Workdir, open_workdir
from eef_jax.types import ChatRequest, Outcome, Task, Trajectory

FLAGS = flags.FLAGS

STEPS, PAGE = 8, 800
QUERIES = ("next", "b0000 tent", "hard", "zzz")  # what is typed into the search, one after another
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_POLL_MS = 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a browser measured, in milliseconds.

    Attributes:
        first_paint: from the start of loading to the first content on the screen.
        list: from the start of loading to the list of trajectories.
        filters: of each filter, until the list is drawn.
    """

    first_paint: float
    list: float
    filters: Sequence[float]


def fill(folder: pathlib.Path, count: int) -> Workdir:
    """Make the work folder of an unfinished run with `count` trajectories."""
    config = config_lib.load("webshop", [("method.rounds", "1")])
    env = config_lib.make("env", config.env)
    try:
        tasks = env.tasks("train")
        experts = [*_experts(env, tasks, count // 5)]
    finally:
        env.close()
    rollouts = [*_rollouts(experts, count - len(experts))]
    with open_workdir(folder, config_lib.plain(config)) as work:
        for name, trajectories in (("expert", experts), ("round_1/explore", rollouts)):
            stage = work.stage(name)
            stage.start()
            write_trajectories(stage.folder, trajectories)
            stage.commit(play.counts(trajectories))
    return work


def _experts(env: Env, tasks: Sequence[Task], count: int) -> Iterator[Trajectory]:
    """Attempts of a random shopper, cut or filled up to `STEPS` steps of `PAGE` characters."""
    for number in range(-(-count // len(tasks))):
        generator = random.Random(number)
        shopper = ScriptedPolicy(functools.partial(_wander, generator), name="random")
        episodes = play.from_start(tasks, STEPS, prefix=f"expert_{number}")
        some = episodes[: count - number * len(tasks)]
        for played in loop.play_episodes_sync(env, shopper, some, source="expert"):
            yield _shaped(played, generator)


def _wander(generator: random.Random, request: ChatRequest) -> str:
    """Search for some words of the goal, or click on something of the page."""
    page = request.messages[-1].content
    buttons = [text for text in page.split(" [SEP] ")[2:] if len(text) < 12]
    if page.endswith("Search") or not buttons or generator.random() < 0.2:
        words = request.messages[0].content.split()[6:]
        return f"search[{' '.join(generator.sample(words, 3))}]"
    return f"click[{generator.choice(buttons).lower()}]"


def _shaped(played: Trajectory, generator: random.Random) -> Trajectory:
    pages = [step.observation for step in played.steps]
    steps = [played.steps[n % len(pages)] for n in range(STEPS)]
    shaped = tuple(dataclasses.replace(step, observation=_page(pages, generator)) for step in steps)
    return dataclasses.replace(played, steps=shaped, outcome=Outcome.FAILED, win=False)


def _page(pages: Sequence[str], generator: random.Random) -> str:
    """`PAGE` characters of an attempt's pages, of which no two are equal."""
    text = " [SEP] ".join(generator.sample(pages, len(pages)))
    while len(text) < PAGE:
        text += " [SEP] " + text
    parts = text.split(" [SEP] ")
    begin = generator.randrange(len(parts))
    return " [SEP] ".join([*parts[begin:], *parts[:begin]])[:PAGE]


def _rollouts(experts: Sequence[Trajectory], count: int) -> Iterator[Trajectory]:
    """Rollouts from the start, and more that go on from an expert's state."""
    generator = random.Random(0)
    for number in range(count):
        expert, other = generator.choice(experts), generator.choice(experts)
        fork = generator.choice((0, 0, 0, 1, 2, 3, 4, 5))
        won = generator.random() < 0.4
        yield dataclasses.replace(
            other,
            id=f"round_1/{number}",
            task=expert.task,
            steps=(*expert.steps[:fork], *other.steps[fork:]),
            parent=expert.id if fork else None,
            fork_step=fork,
            source="policy",
            agent="round_0",
            round=1,
            attempt=number,
            win=won,
            outcome=Outcome.WON if won else Outcome.FAILED,
        )


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """The browser, as Playwright drives it.

    Raises:
        ConfigError: there is none.
    """
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if program is None:
        raise ConfigError(f"there is no browser ({', '.join(_CHROMIUM)}): apt-get install chromium")
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs rights that root in a container lacks.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser: Any, path: epath.PathLike) -> Opened:
    """Open the page, go to its trajectories and filter them."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"file://{path}")
    # Not `wait_for_function`: it evaluates in the page, whose security policy forbids that.
    while not (paint := _entries(page, "first-contentful-paint", "startTime")):
        page.wait_for_timeout(_POLL_MS)
    page.goto("about:blank")
    page.goto(f"file://{path}#view=list")
    page.wait_for_selector(".row")
    listed = page.evaluate("performance.now()")
    for query in QUERIES:
        page.fill("#search", query)
    page.fill("#search", "")
    page.select_option("#by-outcome", "won")
    page.select_option("#by-tag", "hard")
    filters = _entries(page, "filter", "duration")[1:]  # the first one lists everything
    page.close()
    return Opened(first_paint=paint[0], list=listed, filters=filters)


def _entries(page: Any, name: str, field: str) -> list[float]:
    script = f"performance.getEntriesByName('{name}').map(entry => entry.{field})"
    found: list[float] = page.evaluate(script)
    return found


def main() -> None:
    """Make the page and print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "run"
        work = fill(folder, FLAGS.trajectories)
        begun = time.process_time()
        report.write(work)
        seconds = time.process_time() - begun
        path = folder / report.page.FILE
        with chromium() as browser:
            opened = open_page(browser, path)
        size = os.path.getsize(path)
    rows = [
        ["trajectories", f"{FLAGS.trajectories:,}"],
        ["size of the page", f"{size / 1e6:.1f} MB"],
        ["CPU time of making report.md and the page", f"{seconds:.1f} s"],
        ["first paint", f"{opened.first_paint:.0f} ms"],
        ["list of trajectories, from the start of loading", f"{opened.list:.0f} ms"],
        ["slowest of the filters", f"{max(opened.filters):.0f} ms"],
    ]
    print("\n".join(tables.table([machine.describe(), ""], rows)))


def run() -> None:
    """Run the command."""
    flags.DEFINE_integer("trajectories", 10_000, "Trajectories of the run.", lower_bound=20)
    cli.run(main)
