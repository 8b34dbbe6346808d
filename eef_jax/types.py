"""Core data types: tasks, trajectories, policy requests, selections and training examples.

All are frozen, slotted, keyword-only dataclasses of plain values, so that they hash, compare and
turn into JSON.
"""

import abc
import dataclasses
import enum
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

SCHEMA_VERSION = 1
DIGEST_BYTES = 8  # collisions matter among the few states of one task alone

Source = Literal["expert", "policy"]
Role = Literal["system", "user", "assistant"]


class Outcome(enum.StrEnum):
    """How an attempt ended. The last four are infrastructure's doing, never the policy's."""

    WON = "won"
    FAILED = "failed"
    MAX_STEPS = "max_steps"
    MAX_CONTEXT = "max_context"
    INVALID_ACTIONS = "invalid_actions"
    ENV_ERROR = "env_error"
    ENV_TIMEOUT = "env_timeout"
    DIVERGED = "diverged"
    POLICY_ERROR = "policy_error"

    @property
    def completed(self) -> bool:
        """Whether the attempt says anything about the policy (a win or an honest failure)."""
        return self not in _INFRASTRUCTURE


_INFRASTRUCTURE = frozenset(
    {Outcome.ENV_ERROR, Outcome.ENV_TIMEOUT, Outcome.DIVERGED, Outcome.POLICY_ERROR}
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be solved.

    Attributes:
        id: unique in its environment and stable across processes, e.g. `"webshop/train/17"`.
        env: name of the environment.
        split: `train`, `dev` or `test`.
        goal: the instruction as the agent reads it.
        payload: what the environment needs to start the task, as a JSON string (never shown to an
            agent).
        tags: facts for the report alone, e.g. `("hard",)`.
        max_steps: cap on an agent's actions in this task; 0: the run's. The lower one holds.
    """

    id: str
    env: str
    split: str
    goal: str
    payload: str = "{}"
    tags: tuple[str, ...] = ()
    max_steps: int = 0

    def cap(self, max_steps: int) -> int:
        """The cap that holds in a run whose own is `max_steps`."""
        return min(max_steps, self.max_steps or max_steps)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message."""

    role: Role
    content: str


def mark_messages(messages: Sequence[Message], mark: str) -> tuple[Message, ...]:
    """A conversation whose first user message begins with a mark, a line of its own.

    Args:
        messages: the conversation from its beginning.
        mark: the text; "" changes nothing.
    """
    marked = list(messages)
    for index, message in enumerate(marked if mark else ()):
        if message.role == "user":
            marked[index] = dataclasses.replace(message, content=f"{mark}\n{message.content}")
            break
    return tuple(marked)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One turn of an attempt: what was seen, said, done and paid.

    Attributes:
        observation: text the agent saw before it spoke.
        message: the agent's raw message.
        action: the action parsed from it; None where the message held no valid action.
        reward: what this step added to the reward (see `envs.base.StepResult`).
        source: who spoke.
        tokens: ids of `message` as they were sampled, stop token included; empty for text that was
            never sampled here (an expert's). Valid for `Trajectory.tokenizer` alone.
        logprobs: log-probability of each of `tokens` under the sampled distribution.
        info: what else the environment said, JSON values only.
    """

    observation: str
    message: str
    action: str | None
    reward: float = 0.0
    source: Source = "policy"
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(abc.ABC):
    """What is known of one attempt without reading its text.

    A run has hundreds of thousands of attempts. What is decided by outcomes (labels, choices,
    scores) looks at these fields alone; steps are read one attempt at a time, by `load`.

    Attributes:
        id: unique within a run; equal inputs give equal ids.
        task: what was attempted.
        reward: final reward (0-1).
        win: whether the reward is maximal.
        outcome: how it ended.
        source: who made it: an expert or the policy.
        agent: name of the expert or of the policy (for the report).
        round: EEF round that played it; 0 for experts and for the clone's data.
        attempt: number among the task's episodes of its round, from 0.
        parent: id of the trajectory it was forked from, else None.
        fork_step: number of steps taken over from the parent.
    """

    id: str
    task: Task
    reward: float
    win: bool
    outcome: Outcome
    source: Source
    agent: str
    round: int = 0
    attempt: int = 0
    parent: str | None = None
    fork_step: int = 0

    @property
    @abc.abstractmethod
    def length(self) -> int:
        """Number of steps."""

    @abc.abstractmethod
    def prefix(self, count: int) -> bytes:
        """Identifies the first `count` messages: equal where agents said the same."""

    @property
    @abc.abstractmethod
    def rewards(self) -> Mapping[str, float]:
        """Final reward in each convention that its last step names; {} if it names none."""

    @property
    @abc.abstractmethod
    def reason(self) -> str:
        """Why it ended so, where the loop says; else ""."""

    @abc.abstractmethod
    def load(self) -> "Trajectory":
        """The whole trajectory, read anew at each call where it is stored."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory(Attempt):
    """One attempt at a task, from the task's first state to its outcome.

    A fork carries its parent's steps too: `steps[:fork_step]` are the parent's own, the rest is
    new.

    Attributes:
        steps: all turns from the task's initial state s_0.
        final_observation: text after the last action.
        tokenizer: fingerprint of the tokenizer behind `Step.tokens`, else "".
        provenance: who made it: commit, config hash, seed, versions; and the `reason` of its end.
        schema: version of this record's layout.
    """

    steps: tuple[Step, ...]
    final_observation: str
    tokenizer: str = ""
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    schema: int = SCHEMA_VERSION

    @property
    def length(self) -> int:
        return len(self.steps)

    def prefix(self, count: int) -> bytes:
        return message_digests(step.message for step in self.steps[:count])[-DIGEST_BYTES:]

    @property
    def rewards(self) -> Mapping[str, float]:
        named = (step.info["rewards"] for step in reversed(self.steps) if "rewards" in step.info)
        return next(named, {})

    @property
    def reason(self) -> str:
        return str(self.provenance.get("reason", ""))

    def load(self) -> "Trajectory":
        return self


def message_digests(messages: Iterable[str]) -> bytes:
    """For each message `DIGEST_BYTES` that identify it together with all those before it."""
    digests, last = [], b""
    for message in messages:
        data = last + message.encode("utf-8", "surrogatepass")
        last = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
        digests.append(last)
    return b"".join(digests)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """An order for the rollout loop: play `task`, from its start or from a state of `parent`.

    Attributes:
        id: becomes the trajectory's id.
        task: what to play.
        round: round it is played for.
        attempt: number among the task's episodes of the round, from 0; a part of the random key.
        parent: trajectory whose first `fork_step` actions are replayed first.
        fork_step: number of parent actions to replay (0 = from s_0).
        max_steps: cap on the agent's actions, replayed ones included.
    """

    id: str
    task: Task
    round: int
    attempt: int
    max_steps: int
    parent: Attempt | None = None
    fork_step: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What a policy is asked: the whole conversation so far, last message from the user.

    Attributes:
        episode: id of the conversation; a policy may keep state (a KV cache) under it until
            `Policy.finish(episode)`.
        messages: all messages from the first one on.
        tokens: for each message, ids it was sampled as (empty: not sampled, to be rendered).
        turn: number of the agent's turn, from 0; a part of the random key.
        attempt: number among the task's episodes of the round, from 0.
        task: id of the task; a part of the random key.
    """

    episode: str
    messages: tuple[Message, ...]
    tokens: tuple[tuple[int, ...], ...]
    turn: int
    attempt: int
    task: str


FinishReason = Literal["stop", "length", "context", "quit"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A policy's answer.

    Attributes:
        text: the message, without the stop token.
        tokens: sampled ids, the stop token included where it was sampled.
        logprobs: log-probability of each id under the distribution it was sampled from.
        finish: `stop` (said the stop token), `length` (new-token cap), `context` (context is full),
            `quit` (ends the episode as a failure, without a step).
        prompt_tokens: length of the prompt in tokens.
        prefilled: prompt tokens that had to be computed for this answer (not found in the KV
            cache).
        reason: why there is no message, for `context` and `quit`; "": nothing to add.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish: FinishReason = "stop"
    prompt_tokens: int = 0
    prefilled: int = 0
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A method's verdict on one trajectory: which steps to learn, and why.

    Attributes:
        trajectory: what is trained on (all its steps are context); read when it is encoded.
        weights: loss weight of each step's message, 0 or more.
        reasons: why, for each step: one of the constants `KEPT_*` and `MASKED_*` below.
        role: which part of the data set it belongs to: `expert_win`, `s0`, `recovery`, ...
        state: index of the important state, from which on steps are learned (0: s_0).
        pair: id shared by the two sides of a preference pair, else None. The sides follow each
            other, the preferred one first.
        advantages: of a pair's preferred side 1 for each step, of its other side -1. Without a
            pair the signed advantage of each step, for the policy gradient; 0 for steps of an
            expert. Empty: learned by likelihood alone.
        mark: what precedes the conversation in training, see `mark_messages`.
    """

    trajectory: Attempt
    weights: tuple[float, ...]
    reasons: tuple[str, ...]
    role: str
    state: int = 0
    pair: str | None = None
    advantages: tuple[float, ...] = ()
    mark: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The loss that a round trains with: a module of `train/losses` and its options.

    Attributes:
        name: `sft`, `dpo` or `pg`.
        options: arguments of the module's `make`.
    """

    name: str = "sft"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)


# Reasons of a selection's steps. They are stored in data sets and reports: do not reword them.
KEPT_EXPERT_WIN = "kept: expert win"
KEPT_OWN_WIN = "kept: own win"
KEPT_BENEFICIAL = "kept: beneficial expert action"
KEPT_ALL = "kept: all expert actions"
KEPT_FAILURE = "kept: failed attempt, marked as one"
KEPT_PREFERRED = "kept: preferred side of a pair"
KEPT_OTHER = "kept: other side of a pair"
KEPT_BY_REWARD = "kept: weighted by the reward"
KEPT_BY_ADVANTAGE = "kept: policy gradient by the advantage"
MASKED_CONTEXT = "masked: context before the important state"
MASKED_HARMFUL = "masked: harmful expert action"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """What the device trains on: one token sequence with a loss weight for each token.

    Attributes:
        id: id of the selection it comes from.
        tokens: int32[t] token ids.
        weights: float32[t]; `weights[i]` weighs the loss of predicting `tokens[i]` from what stands
            before.
        columns: optional further float32[t] columns by name (reference log-probs, ...).
        pair: id shared by the two sides of a preference pair, which follow each other and share a
            row; "" without one.
        provenance: plain text about where it comes from (`role`, `task`, `trajectory`, `steps`);
            stored with the example, never read by training.
    """

    id: str
    tokens: np.ndarray
    weights: np.ndarray
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    pair: str = ""
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def loss_positions(self) -> np.ndarray:
        """Indices of the learned tokens; the first token has nothing to be predicted from."""
        return np.flatnonzero(self.weights[1:]) + 1
