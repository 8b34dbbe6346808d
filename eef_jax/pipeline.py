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
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from eef_jax import bases, preflight, report
from eef_jax import config as config_lib
from eef_jax import scores as scores_lib
from eef_jax.cluster.hosts import SINGLE_PROCESS, Hosts
from eef_jax.config import Config
from eef_jax.config.sections import EvaluateSection
from eef_jax.data import encode, tfrecord
from eef_jax.data.stored import StoredExamples
from eef_jax.envs.base import Env
from eef_jax.errors import ConfigError
from eef_jax.experts import plays_held_out
from eef_jax.methods.base import Attempts, Method
from eef_jax.policies.base import Policy
from eef_jax.preflight import forecast
from eef_jax.rollout import play
from eef_jax.storage import files
from eef_jax.storage import stages as stages_lib
from eef_jax.storage.files import rerun, write_json
from eef_jax.storage.provenance import collect_provenance, config_hash, json_values
from eef_jax.storage.selections import write_selections
from eef_jax.storage.stages import Schedule
from eef_jax.storage.trajectories import read_given, read_trajectories, write_trajectories
from eef_jax.storage.workdir import CONFIG, Stage, Workdir, open_workdir
from eef_jax.types import Episode, Task, Trajectory

if TYPE_CHECKING:
    from eef_jax.learner.placement import Placement
    from eef_jax.learner.sampling import Sampler

_PARTS = "parts"  # of a stage's folder: what each process played, until it is merged
_LOGGED = ("episodes", "outcomes", "win_rate", "examples", "steps", "loss", "seconds")

_log = logging.getLogger(__name__)


class _Run:
    """What all stages of one run share."""

    def __init__(
        self,
        config: Config,
        work: Workdir,
        env: Env,
        method: Method,
        *,
        hosts: Hosts,
    ):
        self.config = config
        self.work = work
        self.env = env
        self.method = method
        self.hosts = hosts
        self.seed = config.seed
        self.max_steps = config.rollout.max_steps or env.max_steps
        self.provenance = provenance_of(config)
        self._verified: set[str] = set()

    # The learner is imported on first use: stages that need no accelerator load no JAX.

    @functools.cached_property
    def placement(self) -> "Placement":
        """The base model."""
        from eef_jax.learner.placement import Placement

        return Placement(self.config, self.hosts, compile_cache=self.work.compiled)

    @functools.cached_property
    def sampler(self) -> "Sampler":
        """The rollout engine over the base."""
        from eef_jax.learner.sampling import Sampler

        return Sampler(self.placement, self.config.engine)

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
        """The trajectories of the expert and of the first `rounds` explore stages."""
        explored = [self._played[f"round_{number}/explore"] for number in range(1, rounds + 1)]
        return Attempts(
            experts=self._played["expert"], rollouts=tuple(t for each in explored for t in each)
        )

    @functools.cached_property
    def _played(self) -> "_Played":
        return _Played(self.work)


class _Played(dict[str, tuple[Trajectory, ...]]):
    """The trajectories of finished stages by the stage's name, each read once."""

    def __init__(self, work: Workdir):
        super().__init__()
        self._work = work

    def __missing__(self, stage: str) -> tuple[Trajectory, ...]:
        folder = self._work.stage(stage).folder
        self[stage] = read_trajectories(folder, remedy=rerun(folder))
        return self[stage]


def run(
    config: Config,
    workdir: str,
    *,
    stages: Collection[str] = stages_lib.KINDS,
    overwrite: bool = False,
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
        hosts: the processes of the run; all of them make the same call, on one work folder.
        source: where the config comes from, for the header.

    Raises:
        ConfigError: for a config or work folder that cannot be used, before anything is written.
        DataError: when a file that a stage needs is missing or damaged.
        RolloutError: too many episodes of a stage ended in an infrastructure failure.
    """
    config = pinned(config, _earlier_base(workdir, overwrite=overwrite), hosts=hosts)
    start = plan(config, workdir, stages=stages, overwrite=overwrite, is_lead=hosts.is_lead)
    try:
        preflight.check(start)
        with _open(hosts, workdir, config, stages, overwrite) as work:
            if start.schedule.todo:
                _log.info("%s\n", forecast.header(start, source=source))
            schedule = _agreed(hosts, _schedule(work.root, start.method, stages))
            this = _Run(config, work, start.env, start.method, hosts=hosts)
            for name in schedule.todo:
                _MAKERS[stages_lib.kind_of(name)](this, stages_lib.round_of(name))
            if "report" in stages and hosts.is_lead:
                report.write(work)
            return report.table(work) + forecast.next_stages(schedule)
    finally:
        start.env.close()


def check(
    config: Config,
    workdir: str,
    *,
    stages: Collection[str] = stages_lib.KINDS,
    overwrite: bool = False,
    source: str = "",
    devices: int = 0,
    processes: int = 1,
) -> str:
    """Make the checks of `run` alone; returns what the run would do, in lines of text.

    Args:
        config: the run's config.
        workdir: folder of the run.
        stages: kinds of stages that would run, out of `storage.stages.KINDS`.
        overwrite: whether what another config left in `workdir` would be deleted.
        source: where the config comes from, for the text.
        devices: number of devices of the planned run; 0: those that are here.
        processes: number of processes of the planned run.

    Raises:
        EefError: a check failed; with all of them where several did.
    """
    config = pinned(config, _earlier_base(workdir, overwrite=overwrite))
    start = plan(config, workdir, stages=stages, overwrite=overwrite)
    start = dataclasses.replace(start, devices=devices, processes=processes)
    try:
        preflight.check(start)
        parts = [forecast.header(start, source=source), forecast.forecast(start)]
        return "\n\n".join(filter(None, parts))
    finally:
        start.env.close()


def plan(
    config: Config,
    workdir: str,
    *,
    stages: Collection[str],
    overwrite: bool = False,
    is_lead: bool = True,
) -> preflight.Start:
    """Make environment and method, and find the stages to run; its environment is to be closed."""
    root = files.to_path(workdir)
    method: Method = config_lib.make("method", config.method)
    return preflight.Start(
        config=config,
        schedule=_schedule(root, method, stages, overwrite=overwrite),
        env=config_lib.make("env", config.env),
        method=method,
        root=root,
        overwrite=overwrite,
        is_lead=is_lead,
    )


def pinned(config: Config, earlier: str = "", *, hosts: Hosts = SINGLE_PROCESS) -> Config:
    """The config with the commit of a base on the Hugging Face hub in the base's name.

    Args:
        config: a run's config.
        earlier: the base's name that an earlier start of the run recorded, "" without one.
        hosts: the processes of the run, which all take the commit that the lead has found.

    Raises:
        DataError: the commit cannot be found out.
    """
    given = config.model.path
    found = [given, bases.pinned(given, earlier) if hosts.is_lead else ""]
    leads, path = json.loads(hosts.broadcast(json.dumps(found)))
    if leads != given:  # started by another command, which is refused later
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, path=path))


def provenance_of(config: Config) -> dict[str, Any]:
    """The provenance of what a run makes."""
    results = config_lib.of_kind(config, "results")
    return collect_provenance(results, config.seed, base=config.model.path)


def _earlier_base(workdir: str, *, overwrite: bool) -> str:
    """The base's name in the config that a work folder holds; "" without one."""
    file = files.to_path(workdir) / CONFIG
    if overwrite or not file.exists():
        return ""
    try:
        return str(json.loads(file.read_bytes())["model"]["path"])
    except (ValueError, KeyError, TypeError):  # the config of something else, refused later
        return ""


def _schedule(
    root: epath.Path, method: Method, kinds: Collection[str], *, overwrite: bool = False
) -> Schedule:
    names = stages_lib.stage_names(method.rounds)
    done = [name for name in names if Stage(name=name, folder=root / name).done()]
    return stages_lib.schedule(method.rounds, kinds, () if overwrite else done)


def _agreed(hosts: Hosts, schedule: Schedule) -> Schedule:
    """The lead's schedule, on all processes."""
    return Schedule(**json.loads(hosts.broadcast(json.dumps(dataclasses.asdict(schedule)))))


@contextlib.contextmanager
def _open(
    hosts: Hosts, workdir: str, config: Config, stages: Collection[str], overwrite: bool
) -> Iterator[Workdir]:
    """The work folder: locked by the lead, used by all processes."""
    mine = json.dumps([hash_of(config), sorted(stages), overwrite])
    if (leads := hosts.broadcast(mine)) != mine:
        raise ConfigError(
            f"process {hosts.process_index} was started with {mine} (config hash, stages, "
            f"overwrite), process 0 with {leads}: start all processes with the same command"
        )
    if hosts.is_lead:
        with open_workdir(
            workdir,
            config_lib.plain(config),
            may_differ=config_lib.of_kind(config, "free"),
            overwrite=overwrite,
        ) as work:
            hosts.broadcast(work.holder())
            yield work
            hosts.barrier()
        return
    work = Workdir(root=epath.Path(workdir), config=json_values(config_lib.plain(config)))
    holder = hosts.broadcast("")  # waits until the lead holds it
    if work.holder() != holder:
        raise ConfigError(
            f"{workdir} is not the same folder for process {hosts.process_index} as for process "
            "0: take a --workdir in storage that all machines share, or gs://"
        )
    yield work
    hosts.barrier()


def hash_of(config: Config) -> str:
    """Hash of the fields that decide a run's results."""
    return config_hash(config_lib.of_kind(config, "results"))


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
    stage, hosts = this.work.stage(name), this.hosts
    begun = time.monotonic()
    if hosts.is_lead:
        this.verify(stages_lib.needs(name))
        stage.start(keep=keep)
    hosts.barrier()  # no process writes into a folder that is still to be cleared
    counts = make(stage) if together or hosts.is_lead else {}
    hosts.barrier()
    if hosts.is_lead:
        counts["seconds"] = round(time.monotonic() - begun, 2)
        stage.commit(counts, this.provenance)
        _log.info("%s: %s", name, json.dumps({k: v for k, v in counts.items() if k in _LOGGED}))
    hosts.barrier()  # no process reads what is not committed


def _expert(this: _Run, _: int) -> None:
    """The expert's trajectories on the train tasks, and on the held-out ones for comparison."""

    def make(stage: Stage) -> dict[str, Any]:
        section = this.config.expert
        if section.trajectories:
            trajectories: Sequence[Trajectory] = read_given(
                section.trajectories, this.env.tasks("train")
            )
            write_trajectories(stage.folder, trajectories)
            return play.counts(trajectories)
        expert = config_lib.make("expert", section, env=this.env)
        try:
            trajectories = _expert_plays(this, expert, "train")
            write_trajectories(stage.folder, trajectories)
            if plays_held_out(section):
                held_out = _expert_plays(this, expert, this.config.evaluate.split)
                write_json(stage.folder / "scores.json", scores_lib.score_summary(held_out))
        finally:
            asyncio.run(expert.close())
        return play.counts(trajectories) | {"spent": expert.spent()}

    _stage(this, "expert", make)


def _expert_plays(this: _Run, expert: Policy, split: str) -> list[Trajectory]:
    tasks = this.env.tasks(split)
    episodes = play.from_start(tasks, this.max_steps, prefix=f"expert/{expert.name}")
    return play.play(
        this.env,
        expert,
        episodes,
        this.config.rollout,
        source="expert",
        provenance=this.provenance,
        label="expert" if split == "train" else f"expert, {split} tasks",
    )


def _explore(this: _Run, number: int) -> None:
    """The episodes that the method asks for in a round, played by the previous round's policy."""

    def make(stage: Stage) -> dict[str, Any]:
        attempts = this.attempts(number - 1)
        episodes = this.method.episodes(attempts, this.tasks, number, this.max_steps)
        sampling, seed = this.config.explore, 1000 * this.seed + number
        with this.sampler.policy(this.tuned(number - 1), sampling, seed=seed) as policy:
            return _play_and_store(this, policy, episodes, stage, f"explore round {number}")[1]

    _stage(this, f"round_{number}/explore", make, together=True)


def _select(this: _Run, number: int) -> None:
    """What the method learns from the trajectories so far, as weighted token sequences."""

    def make(stage: Stage) -> dict[str, Any]:
        attempts, tasks = this.attempts(number), this.tasks
        selections = this.method.select(attempts, tasks, number)
        length = this.config.train.seq_len
        examples, counts = encode.encode_all(
            selections, this.env.prompt, this.placement.chat, max_length=length
        )
        encode.check_learnable(counts, name=f"round_{number}/select", max_length=length)
        write_selections(stage.folder, selections)
        tfrecord.write(
            stage.folder / "dataset",
            examples,
            description=f"{this.method.name}, round {number}, seed {this.seed}",
        )
        facts = dict(this.method.facts(attempts, tasks, number)) if number else {}
        return {**dataclasses.asdict(counts), "facts": facts}

    _stage(this, f"round_{number}/select", make)


def _tune(this: _Run, number: int) -> None:
    """The policy of this round: the base (or the previous policy) tuned on the round's data."""
    from eef_jax.learner import tuning

    name = f"round_{number}/tune"

    def make(stage: Stage) -> dict[str, Any]:
        this.sampler.release()
        return tuning.tune(
            this.placement,
            StoredExamples(this.work.stage(f"round_{number}/select").folder / "dataset"),
            stage.folder,
            this.config.train,
            seed=this.seed,
            number=number,
            previous=this.tuned(number - 1) if number else None,
            config_hash=hash_of(this.config),
            made_from={need: this.work.stage(need).content() for need in stages_lib.needs(name)},
            hosts=this.hosts,
        )

    _stage(this, name, make, together=True, keep=tuning.UNFINISHED)


def _evaluate(this: _Run, number: int) -> None:
    """The policy of this round on held-out tasks."""

    def make(stage: Stage) -> dict[str, Any]:
        section = this.config.evaluate
        episodes = held_out(this.env, section.split, this.max_steps)
        with evaluated(this.sampler, this.tuned(number), section, seed=this.seed) as policy:
            label = f"evaluate round {number}"
            trajectories, counts = _play_and_store(this, policy, episodes, stage, label)
        if this.hosts.is_lead:
            write_json(stage.folder / "scores.json", scores_lib.score_summary(trajectories))
        return counts

    _stage(this, f"round_{number}/evaluate", make, together=True)


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
    sampler: "Sampler", checkpoint: epath.Path | None, section: EvaluateSection, *, seed: int
) -> contextlib.AbstractContextManager[Policy]:
    """The policy of a checkpoint (None: the untuned base) with the config's section `evaluate`."""
    return sampler.policy(checkpoint, section, seed=1000 * seed)


def _play_and_store(
    this: _Run, policy: Policy, episodes: Sequence[Episode], stage: Stage, label: str
) -> tuple[list[Trajectory], dict[str, Any]]:
    """Play a stage's episodes on all processes; the lead stores them. Trajectories and counts."""
    trajectories, tokens = play.play_together(
        this.env,
        policy,
        episodes,
        this.config.rollout,
        hosts=this.hosts,
        folder=stage.folder / _PARTS,
        provenance=this.provenance,
        label=label,
    )
    if this.hosts.is_lead:
        write_trajectories(stage.folder, trajectories)
    return trajectories, play.counts(trajectories) | {"tokens": tokens}
