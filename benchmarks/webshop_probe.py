"""What one fresh process measures of itself for `benchmarks.webshop`: JSON on stdout.

Nothing of the package is imported before the clock starts.
"""

import json
import pathlib
import random
import resource
import sys
import tempfile
import time
from typing import Any

SECONDS = 5.0  # CPU time for which steps are counted
QUERIES = 300
GAMES = 1000


def load(folder: str) -> dict[str, float]:
    """Import the module and load the dataset: wall seconds, and the process's memory after it."""
    start = time.perf_counter()
    from eef_jax.envs import webshop

    env = webshop.make(data_dir=folder)
    env.game().reset(env.tasks("test")[0])
    return {"seconds": time.perf_counter() - start, "rss_mb": memory("VmRSS")}


def speed(folder: str) -> dict[str, float]:
    """Steps a second of CPU time, each episode another goal and query, a purchase at its end."""
    from eef_jax.envs import webshop

    env = webshop.make(data_dir=folder, goals_per_product=0)
    tasks, game = env.tasks("train"), env.game()
    steps = played = 0
    start = time.process_time()
    while (spent := time.process_time() - start) < SECONDS:
        task = tasks[played % len(tasks)]
        played += 1
        game.reset(task)
        steps += len(shop(game, task.goal, random.Random(played)))
    return {"steps_per_s": steps / spent, "episodes": played}


def shop(game: Any, words: str, rng: random.Random, stop: int = 9) -> list[Any]:
    """Search for a goal's words, open a result, choose a value in each group, and buy."""
    results = [game.step(f"search[{words}]")]
    asins = [name for name in game.clickables() if name not in {"back to search", "next >"}]
    if asins and stop > 1:
        results.append(game.step(f"click[{rng.choice(asins)}]"))
        options = game.clickables()[6:]  # what comes before them is on every item page
        for value in rng.sample(options, min(2, len(options), stop - 2)):
            results.append(game.step(f"click[{value}]"))
        if len(results) < stop:
            results.append(game.step("click[buy now]"))
    return results


def search(folder: str) -> dict[str, float]:
    """Median CPU milliseconds of a search; every query is new, half are goals, half shorter."""
    import statistics

    from eef_jax.envs import webshop

    env = webshop.make(data_dir=folder)
    goals = [task.goal for task in env.tasks("train")[:QUERIES]]
    queries = [
        goal if place % 2 else " ".join(goal.split()[:6]) for place, goal in enumerate(goals)
    ]
    index, spent = env.dataset.index, []
    for place, query in enumerate(queries):
        start = time.process_time()
        index.search(f"{query.lower()} {place}")
        spent.append(1000 * (time.process_time() - start))
    return {"median_ms": statistics.median(spent), "worst_ms": max(spent)}


def games(folder: str) -> dict[str, float]:
    """What `GAMES` episodes, each on a page of its own, add to a process's own memory.

    Pages of mapped files do not count: they belong to the system's cache, shared by all processes.
    """
    from eef_jax.envs import webshop

    env = webshop.make(data_dir=folder, goals_per_product=0)
    tasks = env.tasks("train")
    first = env.game()
    first.reset(tasks[len(tasks) - 1])
    shop(first, tasks[len(tasks) - 1].goal, random.Random(0))
    before, live = memory("RssAnon"), []
    for place in range(GAMES):
        game, task = env.game(), tasks[place % len(tasks)]
        game.reset(task)
        shop(game, task.goal, random.Random(place), stop=1 + place % 3)
        live.append(game)
    return {"added_mb": memory("RssAnon") - before, "games": len(live)}


def import_(folder: str) -> dict[str, float]:
    """Peak memory of importing a folder's catalogue, in MB."""
    from eef_jax.envs.webshop import importer

    source = pathlib.Path(folder)
    with tempfile.TemporaryDirectory(dir=source) as out:
        importer.run(
            products=str(source / "products.json"),
            attributes=str(source / "attributes.json"),
            out=out,
        )
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def memory(what: str) -> float:
    """A figure of this process's memory in MB, by its name in /proc."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) / 1024


PROBES = {"load": load, "speed": speed, "search": search, "games": games, "import": import_}

if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]](sys.argv[2])))
