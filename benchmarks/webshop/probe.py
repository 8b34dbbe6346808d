"""Measurements that a fresh process makes of itself for `benchmarks.webshop`: JSON on stdout.

The package is imported only after the clock starts.
"""

import json
import pathlib
import resource
import sys
import tempfile
import time
from typing import Any

SECONDS = 5.0  # CPU time for which steps are counted
QUERIES = 300
GAMES = 1000


def load(folder: str) -> dict[str, float]:
    """Wall seconds, CPU seconds and memory of importing the module, loading and opening a task.

    The CPU time includes the start of Python.
    """
    start = time.perf_counter()
    from eef_jax.envs import webshop

    env = webshop.make(webshop.Config(data_dir=folder))
    env.game().reset(env.tasks("test")[0])
    return {
        "wall_s": time.perf_counter() - start,
        "cpu_s": time.process_time(),
        "rss_mb": memory("VmRSS"),
    }


def speed(folder: str) -> dict[str, float]:
    """Steps per second of CPU time; each episode makes a new search and ends in a purchase."""
    from eef_jax.envs import webshop

    env = webshop.make(webshop.Config(data_dir=folder, goals_per_product=0))
    tasks, game = env.tasks("train")[:2000], env.game()
    steps = played = 0
    start = time.process_time()
    while (spent := time.process_time() - start) < SECONDS:
        task = tasks[played % len(tasks)]
        game.reset(task)
        steps += shop(game, f"{task.goal} {played}", played)
        played += 1
    return {"steps_per_s": steps / spent, "episodes": played}


def shop(game: Any, words: str, pick: int, stop: int = 9) -> int:
    """Search, open a result, choose up to two options and buy.

    Args:
        game: a game that was reset.
        words: words to search for.
        pick: index of the result to open, modulo their number.
        stop: most steps to take.

    Returns:
        The number of steps.
    """
    game.step(f"search[{words}]")
    asins = [name for name in game.clickables() if name not in {"back to search", "next >"}]
    if not asins or stop == 1:
        return 1
    game.step(f"click[{asins[pick % len(asins)]}]")
    options = game.clickables()[6:][::-1][
        : min(2, stop - 2)
    ]  # the first six are the same on every item page
    for value in options:
        game.step(f"click[{value}]")
    if len(options) + 2 < stop:
        game.step("click[buy now]")
    return min(stop, len(options) + 3)


def search(folder: str) -> dict[str, float]:
    """Median CPU milliseconds of a search; every query is new, half are whole goals."""
    import statistics

    from eef_jax.envs import webshop
    from eef_jax.envs.webshop.shop import search_index

    env = webshop.make(webshop.Config(data_dir=folder))
    goals = [task.goal for task in env.tasks("train")[:QUERIES]]
    queries = [
        goal if place % 2 else " ".join(goal.split()[:6]) for place, goal in enumerate(goals)
    ]
    index, spent = search_index(env.dataset), []
    for place, query in enumerate(queries):
        start = time.process_time()
        index.search(f"{query.lower()} {place}")
        spent.append(1000 * (time.process_time() - start))
    return {"median_ms": statistics.median(spent), "worst_ms": max(spent)}


def games(folder: str) -> dict[str, float]:
    """Anonymous memory that `GAMES` live episodes on different pages add.

    Pages of mapped files do not count: they are in the page cache, shared by all processes.
    """
    from eef_jax.envs import webshop

    env = webshop.make(webshop.Config(data_dir=folder, goals_per_product=0))
    tasks = env.tasks("train")
    first = env.game()
    first.reset(tasks[len(tasks) - 1])
    shop(first, tasks[len(tasks) - 1].goal, 0)
    before, live = memory("RssAnon"), []
    for place in range(GAMES):
        game, task = env.game(), tasks[place % len(tasks)]
        game.reset(task)
        shop(game, task.goal, place, stop=1 + place % 3)
        live.append(game)
    return {"added_mb": memory("RssAnon") - before, "games": len(live)}


def import_(folder: str) -> dict[str, float]:
    """Peak memory of importing a folder's catalogue, in MB."""
    from eef_jax.envs.webshop import importer

    source = pathlib.Path(folder)
    with tempfile.TemporaryDirectory(dir=source) as out:
        sources = importer.Sources(
            products=str(source / "products.json"),
            attributes=str(source / "attributes.json"),
        )
        importer.import_dataset(sources, out)
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def memory(what: str) -> float:
    """A figure of this process's memory in MB, by its name in /proc."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) / 1024


PROBES = {"load": load, "speed": speed, "search": search, "games": games, "import": import_}

if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]](sys.argv[2])))
