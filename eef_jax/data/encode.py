"""From steps to tokens: turns a method's `Selection` into the `Example` that is trained on.

The only place where text and steps become tokens and weights. Chat templates are in `text/`,
packing is in `batches`.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from eef_jax.errors import DataError
from eef_jax.types import Example, Message, Selection, Task, Trajectory, mark_messages


class Chat(Protocol):
    """What encoding needs of a chat tokenizer (`eef_jax.text.chat.ChatTokenizer` is one)."""

    @property
    def fingerprint(self) -> str:
        """Identifies tokenizer and template; recorded ids are valid only under the same ones."""
        ...

    def example(
        self, messages: Sequence[Message], tokens: Sequence[Sequence[int]] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of a conversation and, for each id, the index of the message it belongs to.

        Only ids that a policy would sample (an assistant's content and end of turn) belong to a
        message; all others (headers, prompts, observations) have -1.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts of `encode_all`.

    They add up: `selections` = `examples` + `unweighted` + `too_long`.

    Attributes:
        selections: all verdicts.
        examples: encoded.
        unweighted: skipped because no step has a weight.
        too_long: skipped because they exceed `max_length`.
        tokens: tokens of all examples.
        weighted_tokens: tokens with a loss weight other than 0.
        steps: steps in all selections.
        weighted_steps: steps with a loss weight, in the examples made.
    """

    selections: int = 0
    examples: int = 0
    unweighted: int = 0
    too_long: int = 0
    tokens: int = 0
    weighted_tokens: int = 0
    steps: int = 0
    weighted_steps: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What encoding reads besides the selections.

    Attributes:
        max_length: longest example, or pair of examples, in tokens (the length of a training row).
        observation_weight: loss weight of what the environment answers, from the second
            observation on, with the template's text around it.
        temperature: at which the policy's tokens were sampled; read for the policy gradient.
    """

    max_length: int
    observation_weight: float = 0.0
    temperature: float = 1.0


def columns_of(selections: Iterable[Selection]) -> tuple[str, ...]:
    """The columns that the examples of these selections need, the same for all of a data set."""
    signed = [bool(s.pair) for s in selections if s.advantages]
    if all(signed):
        return ("advantages",) if signed else ()
    return "advantages", "sampled_logps", "temperatures"


def encode(
    selection: Selection,
    prompt: Sequence[Message],
    chat: Chat,
    options: Options,
    columns: Sequence[str] = (),
) -> Example:
    """Encode one selected trajectory as a conversation with a loss weight for each token.

    The conversation is the environment's prompt, then observation (user) and message (assistant) of
    each step up to the last weighted one; later steps have no weight and are dropped.
    Tokens of a step's message, its end of turn included, carry the step's weight, all others 0. Ids
    that were sampled under the same tokenizer are used as they are, never re-encoded. What is
    learned by the policy gradient are sampled ids alone: an end of turn that was added has weight 0
    there.

    Args:
        selection: a trajectory and the weight of each of its steps.
        prompt: messages of `Env.prompt(task)`, before the first observation.
        chat: renders messages to ids.
        options: see there.
        columns: columns that the example gets, out of those of `columns_of`: `advantages`, and for
            the policy gradient `sampled_logps` and `temperatures` (0 for what was not sampled).

    Returns:
        The example; its provenance has the role, task, trajectory and the verdict on each step.

    Raises:
        DataError: the selection does not give one weight and one reason a step, has no
            weighted step, or a weighted message renders to no token at all; or the policy gradient
            is to learn what was not sampled here.
    """
    _check(selection)
    trajectory = selection.trajectory.load()
    messages, sampled, weights = _conversation(
        trajectory, selection.weights, prompt, chat.fingerprint
    )
    ids, message_of_token = chat.example(mark_messages(messages, selection.mark), sampled)
    message_of_token = np.asarray(message_of_token)
    message_indices = message_of_token.tolist()
    _check_rendered(selection, messages, weights, set(message_indices))
    values = {
        "weights": np.array([weights.get(index, 0.0) for index in message_indices], np.float32)
    }
    values["weights"][_observed(message_of_token)] = options.observation_weight
    for name in columns:
        values[name] = np.zeros(len(message_indices), np.float32)
    for step, index in enumerate(sorted(weights) if selection.advantages else ()):
        places = np.flatnonzero(message_of_token == index)
        if selection.pair:
            values["advantages"][places] = selection.advantages[step]
        elif selection.weights[step]:
            _check_sampled(trajectory, step, selection.advantages[step], sampled[index])
            if trajectory.steps[step].source == "policy":
                given = trajectory.steps[step].logprobs
                values["weights"][places[len(given) :]] = 0.0  # an end of turn that was added
                places = places[: len(given)]
                values["advantages"][places] = selection.advantages[step]
                values["sampled_logps"][places] = given
                values["temperatures"][places] = options.temperature
    return Example(
        id=_id(selection),
        tokens=np.asarray(ids, np.int32),
        weights=values.pop("weights"),
        columns=values,
        pair=selection.pair or "",
        provenance={
            "role": selection.role,
            "task": trajectory.task.id,
            "trajectory": trajectory.id,
            "steps": json.dumps(_verdicts(trajectory, selection)),
        },
    )


def _observed(message_of_token: np.ndarray) -> np.ndarray:
    """Indices of the tokens between the agent's messages: what the environment answered."""
    said = np.flatnonzero(message_of_token >= 0)
    between = np.arange(said[0], said[-1])
    return between[message_of_token[between] < 0]


def _check_sampled(
    trajectory: Trajectory, number: int, advantage: float, ids: Sequence[int]
) -> None:
    """Refuse a policy gradient of what the policy did not sample with log-probabilities."""
    step = trajectory.steps[number]
    by_expert = step.source == "expert"
    if advantage if by_expert else not 0 < len(ids) == len(step.logprobs):
        raise DataError(
            f"step {number} of trajectory {trajectory.id!r} has the advantage {advantage:g}, but "
            "its tokens were not sampled by this run's policy with their log-probabilities: the "
            "policy gradient learns only what was; give it a weight without an advantage"
        )


def _check(selection: Selection) -> None:
    """Refuse a selection without one weight and reason per step, or without any weight."""
    trajectory, weights = selection.trajectory, selection.weights
    if not len(weights) == len(selection.reasons) == trajectory.length:
        raise DataError(
            f"selection of trajectory {trajectory.id!r} has {len(weights)} weights and "
            f"{len(selection.reasons)} reasons for {trajectory.length} steps; a method's "
            "select() must give one of each for every step"
        )
    if min(weights, default=0) < 0 or len(selection.advantages) not in (0, len(weights)):
        raise DataError(
            f"selection of trajectory {trajectory.id!r} has the weights {weights} and the "
            f"advantages {selection.advantages}: expected weights of 0 or more, and an advantage "
            "for every step or for none"
        )
    if not any(weights):
        raise DataError(
            f"selection of trajectory {trajectory.id!r} has no step with a weight, so there is "
            "nothing to train on; skip it before encoding"
        )


def _conversation(
    trajectory: Trajectory,
    step_weights: Sequence[float],
    prompt: Sequence[Message],
    fingerprint: str,
) -> tuple[list[Message], list[tuple[int, ...]], dict[int, float]]:
    """Messages up to the last weighted step, their sampled ids, and weights by message index."""
    last = max(index for index, weight in enumerate(step_weights) if weight)
    messages = list(prompt)
    sampled: list[tuple[int, ...]] = [()] * len(messages)
    weights = {}
    # Ids are valid only under the tokenizer and template that they were sampled with.
    reuse = trajectory.tokenizer == fingerprint
    for step, weight in zip(trajectory.steps[: last + 1], step_weights, strict=False):
        messages.append(Message(role="user", content=step.observation))
        weights[len(messages)] = weight  # index of the assistant's message, appended next
        messages.append(Message(role="assistant", content=step.message))
        sampled += [(), step.tokens if reuse else ()]
    return messages, sampled, weights


def _check_rendered(
    selection: Selection,
    messages: Sequence[Message],
    weights: Mapping[int, float],
    rendered: set[int],
) -> None:
    """Refuse a weighted message without a token: its step would silently not be learned."""
    missing = {index for index, weight in weights.items() if weight} - rendered
    if missing:
        index = min(missing)
        raise DataError(
            f"step {sorted(weights).index(index)} of trajectory {selection.trajectory.id!r} has a "
            f"weight but its message {messages[index].content!r} renders to no token; check the "
            "tokenizer's chat template"
        )


def encode_all(
    selections: Sequence[Selection],
    prompt: Callable[[Task], Sequence[Message]],
    chat: Chat,
    options: Options,
) -> tuple[list[Example], Counts]:
    """Encode many selections; those that cannot be used are counted and skipped, pairs as a whole.

    Args:
        selections: a method's verdicts.
        prompt: messages that open a task's conversation (`Env.prompt`).
        chat: renders messages to ids.
        options: see there.

    Returns:
        The examples in the order of the selections, and the counts.

    Raises:
        DataError: a selection that cannot be encoded, or a pair without two sides in a row.
    """
    columns = columns_of(selections)
    examples: list[Example] = []
    counts = Counts()
    for unit in _units(selections):
        steps = sum(len(selection.weights) for selection in unit)
        counts = _add(counts, selections=len(unit), steps=steps)
        if not all(any(selection.weights) for selection in unit):
            counts = _add(counts, unweighted=len(unit))
            continue
        sides = [encode(s, prompt(s.trajectory.task), chat, options, columns) for s in unit]
        if sum(len(example.tokens) for example in sides) > options.max_length:
            counts = _add(counts, too_long=len(unit))
            continue
        examples += sides
        counts = _add(
            counts,
            examples=len(unit),
            tokens=sum(len(example.tokens) for example in sides),
            weighted_tokens=sum(int(np.count_nonzero(example.weights)) for example in sides),
            weighted_steps=sum(weight != 0 for s in unit for weight in s.weights),
        )
    return examples, counts


def _units(selections: Iterable[Selection]) -> Iterator[tuple[Selection, ...]]:
    """Single selections, and the two sides of each pair."""
    waiting: Selection | None = None
    for selection in selections:
        if waiting is None and selection.pair is None:
            yield (selection,)
        elif waiting is None:
            waiting = selection
        elif waiting.pair == selection.pair and _are_sides(waiting, selection):
            yield waiting, selection
            waiting = None
        else:
            break
    if waiting is not None:
        raise DataError(
            f"pair {waiting.pair!r} has no two sides in a row: a method's select() gives the "
            "preferred side, with the advantages 1, and right after it the other, with -1"
        )


def _are_sides(first: Selection, second: Selection) -> bool:
    return set(first.advantages) == {1.0} and set(second.advantages) == {-1.0}


def check_learnable(counts: Counts, *, name: str, max_length: int) -> None:
    """Refuse to go on without an example.

    Args:
        counts: of `encode_all`.
        name: of the stage, for the message.
        max_length: as of `encode_all`.

    Raises:
        DataError: nothing is left to learn; with what the selections were lost to.
    """
    if counts.examples:
        return
    if counts.too_long:
        raise DataError(
            f"{name}: nothing is left to learn: all {counts.too_long} trajectories with a step to "
            f"learn are longer than a row of {max_length} tokens: raise config.train.seq_len"
        )
    found = "no trajectory was selected"
    if counts.selections:
        found = f"none of the {counts.selections} selected trajectories has a step with a weight"
    raise DataError(
        f"{name}: there is nothing to learn: {found}. A clone learns the expert's wins: an expert "
        "that wins no train task leaves it without any"
    )


def _id(selection: Selection) -> str:
    """A trajectory may be selected in several roles, states and pairs: the id has them all."""
    pair = f"#{selection.pair}" if selection.pair else ""
    return f"{selection.trajectory.id}:{selection.role}@{selection.state}{pair}"


def _verdicts(trajectory: Trajectory, selection: Selection) -> list[dict[str, object]]:
    pairs = zip(trajectory.steps, selection.weights, selection.reasons, strict=True)
    return [
        {"source": step.source, "weight": weight, "reason": reason}
        for step, weight, reason in pairs
    ]


def _add(counts: Counts, **more: int) -> Counts:
    return dataclasses.replace(
        counts, **{name: getattr(counts, name) + value for name, value in more.items()}
    )
