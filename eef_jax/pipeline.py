"""The story: expert, clone, then rounds of explore, select, tune and evaluate, then the report.

Each stage is a function from config and earlier stages' folders to a folder of its own, committed
by a manifest; what is committed is skipped when a run starts again. This file reads the config and
hands its sections to the parts; it knows what follows what, and none of the parts' insides.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from etils import epath

from eef_jax import plugins, report
from eef_jax import scores as scores_lib
from eef_jax.cluster.hosts import ALONE, Hosts
from eef_jax.data import encode, tfrecord
from eef_jax.data.stored import Stored
from eef_jax.envs.base import Env
from eef_jax.errors import ConfigError, DataError, near
from eef_jax.learner import Learner
from eef_jax.methods.base import Method, Pool
from eef_jax.policies.base import Policy
from eef_jax.rollout import gather, loop
from eef_jax.storage.files import write_json, write_text
from eef_jax.storage.provenance import config_hash, plain, provenance
from eef_jax.storage.trajectories import read_trajectories, write_trajectories
from eef_jax.storage.workdir import Stage, Workdir, open_workdir
from eef_jax.types import Episode, Selection, Task, Trajectory

STAGES = ("expert", "explore", "select", "tune", "evaluate", "report")

_PARTS = "parts"  # of a stage's folder: what each process played, until it is merged

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What all stages of one run share."""

    config: dict[str, Any]
    work: Workdir
    env: Env
    method: Method
    learner: Learner
    stages: Collection[str]
    hosts: Hosts
    provenance: dict[str, Any]

    @property
    def max_steps(self) -> int:
        """Cap on an agent's actions in an episode."""
        return self.config["rollout"]["max_steps"] or self.env.max_steps


def run(
    config: dict[str, Any],
    workdir: str,
    *,
    stages: Collection[str] = STAGES,
    overwrite: bool = False,
    hosts: Hosts = ALONE,
) -> str:
    """Run a config's stages, or the rest of them, and return the report's terminal table.

    Args:
        config: the sections of `configs/common.py`, plain values.
        workdir: folder of the run, local or in an object store.
        stages: kinds of stages to run; what others would make must be there.
        overwrite: delete what a run with another config left in `workdir`.
        hosts: the processes of the run; all call this alike, on one work folder.

    Raises:
        ConfigError: for a config or work folder that cannot be used, before anything is written.
        DataError: when a file that a stage needs is missing or damaged.
    """
    for stage in stages:
        if stage not in STAGES:
            raise ConfigError(f"unknown stage {stage!r} in --stages: {near(stage, STAGES)}")
    env, method = make_env(config), make_method(config)
    with _open(hosts, workdir, config, stages, overwrite) as work:
        this = _Run(
            config=config,
            work=work,
            env=env,
            method=method,
            learner=Learner(config, hosts, compiled=work.compiled),
            stages=stages,
            hosts=hosts,
            provenance=provenance(config, config["seed"]),
        )
        try:
            if set(stages) != {"report"}:
                _play_through(this)
        finally:
            env.close()
        if "report" in stages and hosts.lead:
            report.write(work)
        return report.table(work)


@contextlib.contextmanager
def _open(
    hosts: Hosts, workdir: str, config: dict[str, Any], stages: Collection[str], overwrite: bool
) -> Iterator[Workdir]:
    """The work folder: locked by the lead, used by all processes."""
    mine = json.dumps([config_hash(config), sorted(stages), overwrite])
    if (leads := hosts.agree(mine)) != mine:
        raise ConfigError(
            f"process {hosts.process} was started with {mine} (config hash, stages, overwrite), "
            f"process 0 with {leads}: start all processes with the same command"
        )
    if hosts.lead:
        with open_workdir(workdir, config, overwrite=overwrite) as work:
            hosts.agree(work.holder())
            yield work
            hosts.meet()
        return
    work = Workdir(root=epath.Path(workdir), config=plain(config))
    holder = hosts.agree("")  # waits until the lead holds it
    if work.holder() != holder:
        raise ConfigError(
            f"{workdir} is not the same folder for process {hosts.process} as for process 0: take "
            "a --workdir in storage that all machines share, or gs://"
        )
    yield work
    hosts.meet()


def _play_through(this: _Run) -> None:
    """All rounds in order, each stage skipped where it is done."""
    tasks = this.env.tasks("train")
    pool = Pool(experts=_expert(this))
    for number in range(this.method.rounds + 1):
        if number:
            played = _explore(this, pool, tasks, number)
            pool = dataclasses.replace(pool, rollouts=(*pool.rollouts, *played))
        _select(this, pool, tasks, number)
        _tune(this, number)
        _evaluate(this, number)


def make_env(config: dict[str, Any]) -> Env:
    """The environment of a config."""
    section = dict(config["env"])
    env: Env = plugins.make("envs", section.pop("name"), section)
    return env


def make_method(config: dict[str, Any]) -> Method:
    """The method of a config."""
    section = dict(config["method"])
    method: Method = plugins.make("methods", section.pop("name"), section)
    return method


def play(
    env: Env,
    policy: Policy,
    episodes: Sequence[Episode],
    config: dict[str, Any],
    **options: Any,
) -> list[Trajectory]:
    """Play episodes with the rollout section of a config."""
    section = {k: v for k, v in config["rollout"].items() if k != "max_steps"}
    return loop.play_sync(env, policy, episodes, **section, **options)


def play_together(
    env: Env,
    policy: Policy,
    episodes: Sequence[Episode],
    config: dict[str, Any],
    *,
    hosts: Hosts,
    folder: epath.Path,
    provenance: dict[str, Any],
) -> tuple[list[Trajectory], dict[str, float]]:
    """Play episodes on all processes, their parts meeting in `folder`; see `gather.gather`."""
    played = play(
        env,
        policy,
        gather.share(episodes, hosts),
        config,
        provenance=provenance,
        progress=None if hosts.lead else False,
    )
    return gather.gather(folder, episodes, played, policy.spent(), hosts)


def from_start(
    tasks: Sequence[Task], max_steps: int, *, prefix: str, round: int = 0
) -> list[Episode]:
    """One episode from the start of each task."""
    return [
        Episode(
            id=f"{prefix}/{task.id}",
            task=task,
            round=round,
            attempt=0,
            max_steps=task.cap(max_steps),
        )
        for task in tasks
    ]


def _stage(
    this: _Run, name: str, make: Callable[[Stage], dict[str, Any]], *, together: bool = False
) -> Stage:
    """Run one stage unless it is done: on the lead, or on all processes together."""
    stage, hosts = this.work.stage(name), this.hosts
    if hosts.agree(str(stage.done())) == str(True):
        return stage
    if name.rpartition("/")[2] not in this.stages:
        raise DataError(
            f"{stage.folder} is not finished and --stages leaves it out: run it first (without "
            "--stages all are run, finished ones are skipped)"
        )
    begun = time.monotonic()
    if hosts.lead:
        stage.start()
    hosts.meet()  # nobody writes into a folder that is still to be cleared
    counts = make(stage) if together or hosts.lead else {}
    hosts.meet()
    if hosts.lead:
        counts["seconds"] = round(time.monotonic() - begun, 2)
        stage.commit(counts, this.provenance)
        _log.info("%s: %s", name, json.dumps({k: v for k, v in counts.items() if k in _SHOWN}))
    hosts.meet()  # nobody reads what is not committed
    return stage


_SHOWN = ("episodes", "outcomes", "win_rate", "examples", "steps", "loss", "seconds")


def _expert(this: _Run) -> tuple[Trajectory, ...]:
    """The experts' trajectories on the train tasks, and on the held-out ones for comparison."""

    def make(stage: Stage) -> dict[str, Any]:
        section = dict(this.config["expert"])
        name, file = section.pop("name"), section.pop("trajectories")
        if file:
            trajectories: Sequence[Trajectory] = read_trajectories(file)
            write_trajectories(stage.folder, trajectories)
            return _counts(trajectories)
        expert = plugins.make(
            "experts", name, {"env": this.env, "render": this.env.render, **section}
        )
        try:
            trajectories = _expert_plays(this, expert, "train")
            write_trajectories(stage.folder, trajectories)
            held_out = _expert_plays(this, expert, this.config["evaluate"]["split"])
        finally:
            asyncio.run(expert.close())
        scores = scores_lib.summary(held_out)
        write_json(stage.folder / "scores.json", scores)
        return _counts(trajectories) | {"spent": expert.spent()}

    return read_trajectories(_stage(this, "expert", make).folder)


def _expert_plays(this: _Run, expert: Policy, split: str) -> list[Trajectory]:
    episodes = from_start(this.env.tasks(split), this.max_steps, prefix=f"expert/{expert.name}")
    return play(
        this.env, expert, episodes, this.config, source="expert", provenance=this.provenance
    )


def _explore(this: _Run, pool: Pool, tasks: Sequence[Task], number: int) -> tuple[Trajectory, ...]:
    """What the method wants played in a round, by the policy of the round before."""

    def make(stage: Stage) -> dict[str, Any]:
        episodes = this.method.episodes(pool, tasks, number, this.max_steps)
        with this.learner.policy(
            this.work.stage(f"round_{number - 1}/tune").folder,
            this.config["explore"],
            seed=1000 * this.config["seed"] + number,
        ) as policy:
            trajectories, tokens = play_together(
                this.env,
                policy,
                episodes,
                this.config,
                hosts=this.hosts,
                folder=stage.folder / _PARTS,
                provenance=this.provenance,
            )
        if this.hosts.lead:
            write_trajectories(stage.folder, trajectories)
        return _counts(trajectories) | {"tokens": tokens}

    stage = _stage(this, f"round_{number}/explore", make, together=True)
    return read_trajectories(stage.folder)


def _select(this: _Run, pool: Pool, tasks: Sequence[Task], number: int) -> None:
    """What is learned of what was played, as weighted token sequences."""

    def make(stage: Stage) -> dict[str, Any]:
        selections = this.method.select(pool, tasks, number)
        examples, counts = encode.encode_all(
            selections,
            this.env.prompt,
            this.learner.chat,
            max_length=this.config["train"]["length"],
        )
        lines = [json.dumps(_verdict(selection)) for selection in selections]
        write_text(stage.folder / "selections.jsonl", "".join(f"{x}\n" for x in lines))
        tfrecord.write(
            stage.folder / "dataset",
            examples,
            description=f"{this.method.name}, round {number}, seed {this.config['seed']}",
        )
        facts = dict(this.method.facts(pool, tasks, number)) if number else {}
        return {**dataclasses.asdict(counts), "facts": facts}

    _stage(this, f"round_{number}/select", make)


def _tune(this: _Run, number: int) -> None:
    """The policy of this round: the base (or the last policy) tuned on the round's data."""

    def make(stage: Stage) -> dict[str, Any]:
        examples = Stored(this.work.stage(f"round_{number}/select").folder / "dataset")
        before = this.work.stage(f"round_{number - 1}/tune").folder if number else None
        return this.learner.tune(examples, stage.folder, before=before, number=number)

    _stage(this, f"round_{number}/tune", make, together=True)


def _evaluate(this: _Run, number: int) -> None:
    """The policy of this round on held-out tasks."""

    def make(stage: Stage) -> dict[str, Any]:
        checkpoint = this.work.stage(f"round_{number}/tune").folder
        trajectories, tokens = evaluate(
            this.env,
            this.learner,
            checkpoint,
            this.config,
            hosts=this.hosts,
            folder=stage.folder / _PARTS,
            provenance=this.provenance,
        )
        if this.hosts.lead:
            write_trajectories(stage.folder, trajectories)
            write_json(stage.folder / "scores.json", scores_lib.summary(trajectories))
        return _counts(trajectories) | {"tokens": tokens}

    _stage(this, f"round_{number}/evaluate", make, together=True)


def evaluate(
    env: Env,
    learner: Learner,
    checkpoint: epath.Path | None,
    config: dict[str, Any],
    *,
    hosts: Hosts = ALONE,
    folder: epath.Path,
    provenance: dict[str, Any],
) -> tuple[list[Trajectory], dict[str, float]]:
    """Play a split's tasks once with a checkpoint (None: the base): attempts and tokens spent.

    With several processes these are the lead's to use; their parts meet in `folder`.
    """
    section = dict(config["evaluate"])
    split = section.pop("split")
    max_steps = config["rollout"]["max_steps"] or env.max_steps
    episodes = from_start(env.tasks(split), max_steps, prefix="evaluate")
    with learner.policy(checkpoint, section, seed=1000 * config["seed"]) as policy:
        return play_together(
            env, policy, episodes, config, hosts=hosts, folder=folder, provenance=provenance
        )


def _counts(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    outcomes: dict[str, int] = {}
    for trajectory in trajectories:
        outcomes[trajectory.outcome.value] = outcomes.get(trajectory.outcome.value, 0) + 1
    steps = sum(len(t.steps) - t.fork_step for t in trajectories)
    wins = sum(t.win for t in trajectories)
    return {
        "episodes": len(trajectories),
        "outcomes": dict(sorted(outcomes.items())),
        "win_rate": round(wins / max(len(trajectories), 1), 4),
        "turns": steps,
    }


def _verdict(selection: Selection) -> dict[str, Any]:
    """A selection as JSON: which steps of which trajectory are learned, and why."""
    trajectory = selection.trajectory
    return {
        "trajectory": trajectory.id,
        "task": trajectory.task.id,
        "role": selection.role,
        "state": selection.state,
        "pair": selection.pair,
        "steps": [
            {
                "source": step.source,
                "action": step.action,
                "weight": weight,
                "reason": reason,
            }
            for step, weight, reason in zip(
                trajectory.steps, selection.weights, selection.reasons, strict=True
            )
        ],
    }
