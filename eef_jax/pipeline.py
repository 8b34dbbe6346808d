"""The stages of a run in order: expert, clone, then rounds of explore, select, tune and evaluate.

Each stage is a function from config and earlier stages' folders to its own folder, committed by a
manifest; committed stages are skipped when a run starts again. This file decides what follows what
and hands each part its section of the config.
"""

import asyncio
import contextlib
import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from eef_jax import config as config_lib
from eef_jax import experts, preflight, report, starting
from eef_jax import scores as scores_lib
from eef_jax.cluster import stopping
from eef_jax.cluster.hosts import SINGLE_PROCESS, Hosts
from eef_jax.config import Config, numerics
from eef_jax.config.sections import EvaluateSection
from eef_jax.data import conversations, encode, tfrecord
from eef_jax.data.stored import StoredExamples
from eef_jax.envs.base import Env
from eef_jax.lineage import Lineage
from eef_jax.methods import base as methods
from eef_jax.methods.base import Attempts
from eef_jax.policies.base import Policy, SupportsBudget
from eef_jax.preflight import forecast
from eef_jax.rollout import keeping, play
from eef_jax.storage import manifest
from eef_jax.storage import stages as stages_lib
from eef_jax.storage.files import write_json
from eef_jax.storage.index import StoredAttempt
from eef_jax.storage.selections import read_loss, write_loss, write_selections
from eef_jax.storage.trajectories import index_trajectories, read_given, write_trajectories
from eef_jax.storage.workdir import Stage, Workdir
from eef_jax.types import Attempt, Episode, Task

if TYPE_CHECKING:
    from eef_jax.learner.placement import Placement
    from eef_jax.learner.sampling import Sampler

_LOGGED = ("episodes", "outcomes", "win_rate", "examples", "steps", "loss", "seconds")

_log = logging.getLogger(__name__)


class _Run:
    """What all stages of one run share."""

    def __init__(self, start: preflight.Start, work: Workdir, *, hosts: Hosts):
        self.config = start.config
        self.work = work
        self.env = start.env
        self.method = start.method
        self.hosts = hosts
        self.seed = start.config.seed
        self.max_steps = start.config.rollout.max_steps or start.env.max_steps
        self.provenance = starting.provenance_of(start.config)
        self._record = start.numerics
        self._verified: set[str] = set()

    # The learner is imported on first use: stages that need no accelerator load no JAX.

    @functools.cached_property
    def placement(self) -> "Placement":
        """The base model."""
        from eef_jax.learner.placement import Placement

        return Placement(self.config, self.hosts, compile_cache=self.work.compiled)

    @functools.cached_property
    def sampler(self) -> "Sampler":
        """The rollout engine over the base; all processes use it first at the same place."""
        from eef_jax.learner import sampling

        self.settle(sampling.choose(self.placement, self.config.engine))
        return sampling.Sampler(self.placement, self.config.engine)

    def release_cache(self) -> None:
        """Free the engine's cache, if there is one, so that training has the memory."""
        if "sampler" in vars(self):
            self.sampler.release()

    def settle(self, found: Mapping[str, Any]) -> None:
        """Fill open numerics with what they came to on the lead, which records them.

        Args:
            found: on this process, by field.
        """
        agreed = json.loads(self.hosts.broadcast(json.dumps(dict(found))))
        self.config = numerics.fill(self.config, agreed)
        if self.hosts.is_lead:
            values = dict(sorted({**self._record.values, **numerics.chosen(self.config)}.items()))
            self._record = dataclasses.replace(self._record, values=values)
            numerics.write(self.work.root, self._record)

    def numerics_of(self, name: str) -> list[Mapping[str, Any]]:
        """The numerics that a stage was made with; [] for one that computes with no model."""
        if stages_lib.kind_of(name) not in stages_lib.COMPUTED:
            return []
        return self._record.of_stage(name, numerics.chosen(self.config))

    @functools.cached_property
    def lineage(self) -> Lineage:
        """What stages are made from."""
        return Lineage(self.work, self.config, env=self.env, outside=True)

    def tuned(self, number: int) -> epath.Path:
        """Folder of a round's tune stage."""
        return self.work.stage(f"round_{number}/tune").folder

    @functools.cached_property
    def tasks(self) -> Sequence[Task]:
        """The train tasks."""
        return self.env.tasks("train")

    def verify(self, names: Collection[str]) -> None:
        """Check the files of finished stages against their manifests, each stage once.

        Raises:
            DataError: a file is not as it was written.
        """
        for name in sorted(set(names) - self._verified):
            self.work.stage(name).verify()
            self._verified.add(name)

    def attempts(self, rounds: int) -> Attempts:
        """The attempts of the expert and of the first `rounds` explore stages."""
        explored = [self._played[f"round_{number}/explore"] for number in range(1, rounds + 1)]
        return Attempts(
            experts=self._played["expert"], rollouts=tuple(t for each in explored for t in each)
        )

    @functools.cached_property
    def _played(self) -> "_Played":
        return _Played(self.work)


class _Played(dict[str, tuple[Attempt, ...]]):
    """The attempts of finished stages by the stage's name, each index read once."""

    def __init__(self, work: Workdir):
        super().__init__()
        self._work = work

    def __missing__(self, stage: str) -> tuple[Attempt, ...]:
        self[stage] = index_trajectories(self._work.stage(stage).folder)
        return self[stage]


def run(
    config: Config,
    workdir: str,
    *,
    stages: Collection[str] = stages_lib.KINDS,
    overwrite: bool = False,
    new_numerics: bool = False,
    hosts: Hosts = SINGLE_PROCESS,
    source: str = "",
) -> str:
    """Run a config's stages, or the rest of them, and return the report's terminal table.

    Args:
        config: the run's config.
        workdir: folder of the run, local or in an object store.
        stages: kinds of stages to run, out of `storage.stages.KINDS`. The run ends before the first
            one that needs a stage which is neither finished nor among them.
        overwrite: delete what a run with another config left in `workdir`.
        new_numerics: take other numerics than the run's first start has recorded.
        hosts: the processes of the run; all of them make the same call, on one work folder.
        source: where the config comes from, for the header.

    Raises:
        ConfigError: for a config or work folder that cannot be used, before anything is written.
        DataError: when a file that a stage needs is missing or damaged.
        RolloutError: too many episodes of a stage ended in an infrastructure failure.
    """
    config = starting.pinned(
        config, starting.earlier_base(workdir, overwrite=overwrite), hosts=hosts
    )
    start = starting.plan(
        config, workdir, stages=stages, overwrite=overwrite, is_lead=hosts.is_lead
    )
    try:
        start = starting.with_recorded(start, new_numerics=new_numerics, hosts=hosts)
        preflight.check(start)
        with starting.open_run(hosts, start, config, stages) as work:
            if start.schedule.todo:
                _log.info(forecast.header(start, source=source) + "\n")
            schedule = starting.agree(hosts, starting.schedule(work.root, start.method, stages))
            this = _Run(start, work, hosts=hosts)
            this.settle({})
            if hosts.is_lead:
                for name in schedule.done:
                    work.stage(name).clear_parts()
            for name in schedule.todo:
                _MAKERS[stages_lib.kind_of(name)](this, stages_lib.round_of(name))
                if hosts.is_lead and any(
                    name in stages_lib.needs(other) for other in schedule.done
                ):
                    this.lineage.check(starting.schedule(work.root, start.method, ()).done)
            if "report" in stages and hosts.is_lead:
                report.write(work)
            return report.table(work) + forecast.next_stages(schedule)
    finally:
        start.env.close()


def _stage(
    this: _Run,
    name: str,
    make: Callable[[Stage], dict[str, Any]],
    *,
    together: bool = False,
    keep: Collection[str] = (),
) -> None:
    """Run one stage: on the lead, or on all processes together.

    Args:
        this: the run.
        name: of the stage.
        make: fills the stage's folder, and returns its counts.
        together: whether all processes call `make`.
        keep: what `make` goes on from where an interrupted run left it in the folder.
    """
    stopping.raise_if_requested()
    stage, hosts = this.work.stage(name), this.hosts
    begun = time.monotonic()
    if hosts.is_lead:
        this.verify(stages_lib.needs(name))
        made_from = this.lineage.inputs(name)
        stage.start(keep=keep)
    hosts.barrier()  # no process writes into a folder that is still to be cleared
    counts = make(stage) if together or hosts.is_lead else {}
    hosts.barrier()
    if hosts.is_lead:
        counts["seconds"] = round(time.monotonic() - begun, 2)
        content = counts.pop("content", "")
        stage.commit(
            counts,
            this.provenance,
            made_from=made_from,
            numerics=this.numerics_of(name),
            content=content,
        )
        _log.info("%s: %s", name, json.dumps({k: v for k, v in counts.items() if k in _LOGGED}))
    hosts.barrier()  # no process reads what is not committed


def _expert(this: _Run, _: int) -> None:
    """The expert's trajectories on the train tasks, and on the held-out ones for comparison."""

    def make(stage: Stage) -> dict[str, Any]:
        section = this.config.expert
        if section.trajectories:
            write_trajectories(
                stage.folder, read_given(section.trajectories, this.env.tasks("train"))
            )
            return play.counts(index_trajectories(stage.folder))
        expert = config_lib.make("expert", section, env=this.env)
        if isinstance(expert, SupportsBudget):
            expert.charge(_spent(this, stage))
        try:
            attempts = _expert_plays(this, expert, stage, "train", into=stage.folder)
            if experts.plays_held_out(section):
                held_out = _expert_plays(this, expert, stage, this.config.evaluate.split)
                write_json(stage.folder / "scores.json", scores_lib.score_summary(held_out))
        finally:
            asyncio.run(expert.close())
        return play.counts(attempts) | {"spent": _spent(this, stage)}

    _played_stage(this, "expert", make)


def _expert_plays(
    this: _Run, expert: Policy, stage: Stage, split: str, into: epath.Path | None = None
) -> list[StoredAttempt]:
    """The expert's episodes on a split, played by the lead alone."""
    tasks = this.env.tasks(split)
    episodes = play.from_start(tasks, this.max_steps, prefix=f"expert/{expert.name}")
    attempts, _ = _play(
        this,
        expert,
        episodes,
        parts=stage.parts / split,
        label="expert" if split == "train" else f"expert, {split} tasks",
        into=into,
        hosts=SINGLE_PROCESS,
        source="expert",
        paid=experts.is_paid(this.config.expert),
    )
    return attempts


def _spent(this: _Run, stage: Stage) -> dict[str, float]:
    """What all starts of the expert stage have spent so far."""
    sums: dict[str, float] = {}
    for split in sorted({"train", this.config.evaluate.split}):
        for name, count in keeping.spent(stage.parts / split).items():
            sums[name] = round(sums.get(name, 0) + count, 6)
    return sums


def _played_stage(
    this: _Run, name: str, make: Callable[[Stage], dict[str, Any]], *, together: bool = False
) -> None:
    """Run a stage that plays episodes: those that an interrupted run has played are kept."""
    if this.hosts.is_lead:
        keeping.claim(this.work.stage(name).parts, this.lineage.inputs(name))
    _stage(this, name, make, together=together, keep=(manifest.PARTS,))


def _explore(this: _Run, number: int) -> None:
    """The episodes that the method asks for in a round, played by the previous round's policy."""

    def make(stage: Stage) -> dict[str, Any]:
        attempts = this.attempts(number - 1)
        episodes = this.method.episodes(attempts, this.tasks, number, this.max_steps)
        sampling, seed = this.config.explore, 1000 * this.seed + number
        mark = methods.mark_of(this.method)
        with this.sampler.policy(this.tuned(number - 1), sampling, seed=seed, mark=mark) as policy:
            return _play_and_store(this, policy, episodes, stage, f"explore round {number}")[1]

    _played_stage(this, f"round_{number}/explore", make, together=True)


def _select(this: _Run, number: int) -> None:
    """What the method learns from the trajectories so far, as weighted token sequences."""

    def make(stage: Stage) -> dict[str, Any]:
        attempts, tasks = this.attempts(number), this.tasks
        selections = this.method.select(attempts, tasks, number)
        train, chat = this.config.train, this.placement.chat
        length = train.seq_len
        options = encode.Options(
            max_length=length,
            observation_weight=train.observation_weight,
            temperature=this.config.explore.temperature,
        )
        examples, counts = encode.encode_all(selections, this.env.prompt, chat, options)
        encode.check_learnable(counts, name=f"round_{number}/select", max_length=length)
        write_selections(stage.folder, selections)
        write_loss(stage.folder, methods.loss_of(this.method, number))
        mixed = conversations.read_examples(
            train.conversations,
            chat,
            weight=train.conversations_weight,
            max_length=length,
            columns=encode.columns_of(selections),
        )
        tfrecord.write(
            stage.folder / "dataset",
            [*examples, *mixed],
            description=f"{this.method.name}, round {number}, seed {this.seed}",
        )
        facts = dict(this.method.facts(attempts, tasks, number)) if number else {}
        also = {"conversations": len(mixed)} if train.conversations else {}
        return {**dataclasses.asdict(counts), **also, "facts": facts}

    _stage(this, f"round_{number}/select", make)


def _tune(this: _Run, number: int) -> None:
    """The policy of this round: the base (or the previous policy) tuned on the round's data."""
    from eef_jax.learner import tuning

    name = f"round_{number}/tune"

    def make(stage: Stage) -> dict[str, Any]:
        this.release_cache()
        this.settle(tuning.choose(this.placement, this.config.train))
        selected = this.work.stage(f"round_{number}/select").folder
        return tuning.tune(
            this.placement,
            StoredExamples(selected / "dataset"),
            stage.folder,
            this.config.train,
            seed=this.seed,
            number=number,
            previous=this.tuned(number - 1) if number else None,
            config_hash=starting.hash_of(this.config),
            made_from={need: this.work.stage(need).content() for need in stages_lib.needs(name)},
            asked=read_loss(selected),
            hosts=this.hosts,
        )

    _stage(this, name, make, together=True, keep=tuning.UNFINISHED)


def _evaluate(this: _Run, number: int) -> None:
    """The policy of this round on held-out tasks."""

    def make(stage: Stage) -> dict[str, Any]:
        section = this.config.evaluate
        episodes = held_out(this.env, section.split, this.max_steps)
        mark = methods.mark_of(this.method)
        with evaluated(
            this.sampler, this.tuned(number), section, seed=this.seed, mark=mark
        ) as policy:
            label = f"evaluate round {number}"
            trajectories, counts = _play_and_store(this, policy, episodes, stage, label)
        if this.hosts.is_lead:
            write_json(stage.folder / "scores.json", scores_lib.score_summary(trajectories))
        return counts

    _played_stage(this, f"round_{number}/evaluate", make, together=True)


_MAKERS: dict[str, Callable[[_Run, int], None]] = {
    "expert": _expert,
    "explore": _explore,
    "select": _select,
    "tune": _tune,
    "evaluate": _evaluate,
}


def held_out(env: Env, split: str, max_steps: int) -> list[Episode]:
    """One evaluation episode for each task of a split."""
    return play.from_start(env.tasks(split), max_steps, prefix="evaluate")


def evaluated(
    sampler: "Sampler",
    checkpoint: epath.Path | None,
    section: EvaluateSection,
    *,
    seed: int,
    mark: str,
) -> contextlib.AbstractContextManager[Policy]:
    """The policy of a checkpoint (None: the untuned base) with the config's section `evaluate`.

    Args:
        sampler: makes it.
        checkpoint: a tune stage's folder, or the checkpoint in it.
        section: the config's section `evaluate`.
        seed: of the run.
        mark: of the method that tuned it; the untuned base knows none.
    """
    known = mark if checkpoint is not None else ""
    return sampler.policy(checkpoint, section, seed=1000 * seed, mark=known)


def _play_and_store(
    this: _Run, policy: Policy, episodes: Sequence[Episode], stage: Stage, label: str
) -> tuple[list[StoredAttempt], dict[str, Any]]:
    """Play a stage's episodes on all processes; the lead stores them. Attempts and counts."""
    options = {"hosts": this.hosts, "parts": stage.parts, "into": stage.folder, "label": label}
    attempts, tokens = _play(this, policy, episodes, **options)
    return attempts, play.counts(attempts) | {"tokens": tokens}


def _play(
    this: _Run, policy: Policy, episodes: Sequence[Episode], **options: Any
) -> tuple[list[StoredAttempt], dict[str, float]]:
    """Play the episodes that are not kept yet (`rollout.play.play_stage`)."""
    rollout, provenance = this.config.rollout, this.provenance
    return play.play_stage(this.env, policy, episodes, rollout, provenance=provenance, **options)
