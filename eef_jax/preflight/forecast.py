"""What a run will do, before it begins: a short header, and bounds on its episodes and its cost."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

from eef_jax.config import Config
from eef_jax.methods.base import Attempts
from eef_jax.preflight.start import Start
from eef_jax.report import markdown
from eef_jax.storage.stages import Schedule, kind_of, round_of
from eef_jax.types import Outcome, Step, Task, Trajectory

_WIDTH = 20  # of the names, longer than `round_1/evaluate`
# Bytes of a trajectory's JSON by token: a sampled id with its log-probability, and text.
_SAMPLED_BYTES = 30
_TEXT_BYTES = 5


def header(start: Start, *, source: str) -> str:
    """Work folder, config, model, method, devices and stages, a line each.

    Args:
        start: the start of the run.
        source: where the config comes from, such as `configs/webshop.py:tiny`.
    """
    method, schedule = start.method, start.schedule
    rows = [
        ("config", f"{source or 'given by the caller'}, seed {start.config.seed}"),
        ("environment", f"{start.env.name}: {_tasks(start)}"),
        *_model_rows(start),
    ]
    if start.root is not None:
        rows = [
            ("work folder", f"{start.root}{' (continued)' * bool(schedule.done)}"),
            *rows,
            ("expert", start.config.expert.trajectories or start.config.expert.name),
            ("method", f"{method.name}, {method.rounds} rounds after the clone"),
            ("done", _stages(schedule.done)),
            ("to do", _stages(schedule.todo)),
        ]
    return _lines(rows)


def next_stages(schedule: Schedule) -> str:
    """What is left after a start that ran a part of the stages; "" if nothing is."""
    if not schedule.left_out:
        return ""
    first = schedule.left_out[0]
    return (
        f"\nfinished: {_stages((*schedule.done, *schedule.todo))}"
        f"\nnext: {first}, by the same command with --stages={kind_of(first)}; without --stages it "
        "runs all that is left"
    )


def forecast(start: Start) -> str:
    """Bounds on episodes, tokens, optimizer steps, memory and disk of the stages to run."""
    return _lines(_rows(start))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a stage plays, at most.

    Attributes:
        episodes: number of episodes.
        least: number of episodes at the least.
        turns: the agent's messages.
        tokens: generated.
        context: tokens of all conversations.
    """

    episodes: int
    least: int
    turns: int
    tokens: int
    context: int


def loads(start: Start) -> dict[str, Load]:
    """What the stages to run play, by the stage's name; the expert's tokens are not bounded."""
    config, env = start.config, start.env
    found: dict[str, Load] = {}
    for stage in start.schedule.todo:
        if stage == "expert" and start.expert_plays:
            splits = ["train", *[config.evaluate.split] * start.expert_plays_held_out]
            turns = [task.cap(_max_steps(start)) for split in splits for task in env.tasks(split)]
            found[stage] = Load(
                episodes=len(turns), least=len(turns), turns=sum(turns), tokens=0, context=0
            )
        if kind_of(stage) == "explore":
            found[stage] = _explored(start, round_of(stage))
        if kind_of(stage) == "evaluate":
            turns = [task.cap(_max_steps(start)) for task in env.tasks(config.evaluate.split)]
            found[stage] = _load(config, turns, config.evaluate.max_new_tokens, least=len(turns))
    return found


def optimizer_steps(start: Start, stage: str) -> int:
    """Optimizer steps of a tune stage, at most: every trajectory so far is an example in a row."""
    trajectories = len(_attempts(start).experts) + sum(
        _explored(start, number).episodes for number in range(1, round_of(stage) + 1)
    )
    train = start.config.train
    return train.epochs * math.ceil(trajectories / train.batch_size)


def _lines(rows: Iterable[tuple[str, str]]) -> str:
    """Names and texts in two columns."""
    return "\n".join(
        line
        for name, text in rows
        for line in markdown.wrapped(f"{name:<{_WIDTH}}{text}", indent=_WIDTH)
    )


def _rows(start: Start) -> Iterator[tuple[str, str]]:
    played = loads(start)
    for stage in start.schedule.todo:
        if stage in played:
            yield f"  {stage}", _played(played[stage])
        if kind_of(stage) == "tune":
            yield f"  {stage}", f"at most {optimizer_steps(start, stage):,} optimizer steps"
    generated = sum(load.tokens for load in played.values())
    context = sum(load.context for load in played.values())
    if context:
        yield "tokens", f"at most {generated:,} generated, {context - generated:,} prefilled"
    if start.schedule.kinds() - {"expert"}:
        yield from _device_rows(start, generated=generated, context=context)


def _played(load: Load) -> str:
    least = f"{load.least:,} to " if load.least < load.episodes else ""
    tokens = f", {load.tokens:,} generated tokens" if load.tokens else ""
    return f"{least}{load.episodes:,} episodes, at most {load.turns:,} messages{tokens}"


def _device_rows(start: Start, *, generated: int, context: int) -> Iterator[tuple[str, str]]:
    from eef_jax.preflight import model  # not at the top: it loads JAX

    held = model.memory(start)
    limit = f" of {_size(held.limit)}" if math.isfinite(held.limit) else ""
    yield (
        "memory",
        f"{_size(held.total)}{limit} a device: parameters {_size(held.training + held.rollouts)}, "
        f"optimizer {_size(held.optimizer)}, cache {_size(held.cache)}",
    )
    checkpoints, free = model.checkpoint_bytes(start), model.free_disk_bytes(start.root)
    text = _SAMPLED_BYTES * generated + _TEXT_BYTES * context
    yield (
        "disk",
        f"at most {_size(checkpoints + text)}: checkpoints {_size(checkpoints)}, trajectories "
        f"{_size(text)}" + (f"; free: {_size(free)}" if free is not None else ""),
    )


def _size(count: float) -> str:
    """Bytes in the unit that suits them."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _model_rows(start: Start) -> list[tuple[str, str]]:
    """Model and devices; not where the stages to run need neither."""
    if not start.schedule.kinds() - {"expert"}:
        return []
    import jax

    from eef_jax.preflight import model

    total, trained = model.parameter_counts(start)
    what = "all trained" if trained == total else f"{trained:,} trained (LoRA)"
    name = start.config.model.path or "the base that ships for WebShop"
    count = start.devices or jax.device_count()
    kind = "planned" if start.devices else jax.devices()[0].device_kind
    mesh = {axis: size for axis, size in model.training_mesh(start).shape.items() if size > 1}
    return [
        ("model", f"{name}: {total:,} parameters, {what}"),
        ("devices", f"{count} x {kind}" + f", mesh {mesh}" * bool(mesh)),
    ]


def _tasks(start: Start) -> str:
    splits = dict.fromkeys(("train", start.config.evaluate.split))
    return ", ".join(f"{len(start.env.tasks(split)):,} {split} tasks" for split in splits)


def _stages(names: Sequence[str]) -> str:
    """Stages in words, rounds together: `expert, round_0 (select, tune), round_1 (explore)`."""
    rounds: dict[str, list[str]] = {}
    for name in names:
        folder, _, kind = name.rpartition("/")
        rounds.setdefault(folder or name, []).append(kind)
    parts = [
        f"{folder} ({', '.join(kinds)})" if folder.startswith("round_") else folder
        for folder, kinds in rounds.items()
    ]
    return ", ".join(parts) or "nothing"


def _max_steps(start: Start) -> int:
    return start.config.rollout.max_steps or start.env.max_steps


def _load(config: Config, turns: Sequence[int], new_tokens: int, *, least: int) -> Load:
    room = config.engine.max_context
    return Load(
        episodes=len(turns),
        least=least,
        turns=sum(turns),
        tokens=sum(min(count * new_tokens, room) for count in turns),
        context=room * len(turns),
    )


def _explored(start: Start, number: int) -> Load:
    """What the method explores: exact where the expert's trajectories are known already."""
    tasks, cap = start.env.tasks("train"), _max_steps(start)
    most = start.method.episodes(_attempts(start), tasks, number, cap)
    nothing = Attempts(experts=start.experts or ())
    least = len(start.method.episodes(nothing, tasks, number, cap))
    turns = [episode.max_steps - episode.fork_step for episode in most]
    return _load(start.config, turns, start.config.explore.max_new_tokens, least=least)


def _attempts(start: Start) -> Attempts:
    """The expert's trajectories; where they are not known, one long failure for each task."""
    if start.experts is not None:
        return Attempts(experts=start.experts)
    cap = _max_steps(start)
    return Attempts(experts=tuple(_failure(task, cap) for task in start.env.tasks("train")))


def _failure(task: Task, cap: int) -> Trajectory:
    steps = tuple(Step(observation="", message=str(n), action="") for n in range(task.cap(cap)))
    return Trajectory(
        id=f"expert/{task.id}",
        task=task,
        steps=steps,
        final_observation="",
        reward=0.0,
        win=False,
        outcome=Outcome.FAILED,
        source="expert",
        agent="expert",
    )
