"""`encode` token by token on a toy chat whose ids can be read off."""

import dataclasses
import json

import numpy as np
import pytest

from eef_jax.data.encode import Counts, Options, check_learnable, encode, encode_all
from eef_jax.errors import DataError
from eef_jax.types import Message, Outcome, Selection, Step, Task, Trajectory

PROMPT = (Message(role="system", content="be good"),)
WHOLE = Options(max_length=1000)
SYSTEM, USER, SAY, END = 1, 2, 3, 4  # header ids and end of turn; words are their length plus 10


class ToyChat:
    """Header, one id a word, end of turn; only an assistant's words and end have a speaker."""

    fingerprint = "toy"

    def example(self, messages, tokens):
        ids, speaker = [], []
        headers = {"system": SYSTEM, "user": USER, "assistant": SAY}
        for number, (message, sampled) in enumerate(zip(messages, tokens, strict=True)):
            said = list(sampled) or [len(word) + 10 for word in message.content.split()] + [END]
            ids += [headers[message.role], *said]
            speaker += [-1] + [number if message.role == "assistant" else -1] * len(said)
        return np.array(ids, np.int32), np.array(speaker, np.int32)


def selection(weights, *, tokenizer="", reasons=None, sampled=((), (), ())):
    steps = tuple(
        Step(observation=seen, message=said, action=said, tokens=ids)
        for seen, said, ids in zip(
            ("a bb", "ccc", "d"), ("go far", "buy it now", "end"), sampled, strict=True
        )
    )
    task = Task(id="toy/train/0", env="toy", split="train", goal="win")
    trajectory = Trajectory(
        id="t0",
        task=task,
        steps=steps,
        final_observation="done",
        reward=1.0,
        win=True,
        outcome=Outcome.WON,
        source="expert",
        agent="toy",
        tokenizer=tokenizer,
    )
    return Selection(
        trajectory=trajectory,
        weights=tuple(weights),
        reasons=tuple(reasons or ["why"] * len(weights)),
        role="s0",
    )


def test_every_token_has_the_weight_of_its_step():
    example = encode(selection([0.5, 0.0, 1.0]), PROMPT, ToyChat(), WHOLE)
    expected = [
        (SYSTEM, 0), (12, 0), (14, 0), (END, 0),
        (USER, 0), (11, 0), (12, 0), (END, 0),
        (SAY, 0), (12, 0.5), (13, 0.5), (END, 0.5),
        (USER, 0), (13, 0), (END, 0),
        (SAY, 0), (13, 0), (12, 0), (13, 0), (END, 0),
        (USER, 0), (11, 0), (END, 0),
        (SAY, 0), (13, 1), (END, 1),
    ]  # fmt: skip
    assert list(zip(example.tokens.tolist(), example.weights.tolist(), strict=True)) == expected
    assert example.tokens.dtype == np.int32 and example.weights.dtype == np.float32


def test_steps_after_the_last_weighted_one_are_dropped():
    whole = encode(selection([1.0, 0.0, 1.0]), PROMPT, ToyChat(), WHOLE)
    short = encode(selection([1.0, 0.0, 0.0]), PROMPT, ToyChat(), WHOLE)
    assert short.tokens.tolist() == whole.tokens[:12].tolist()
    assert np.count_nonzero(short.weights) == 3


def test_sampled_ids_are_kept_under_the_same_tokenizer_alone():
    sampled = ((), (70, 71, END), ())
    kept = encode(
        selection([0.0, 1.0, 0.0], tokenizer="toy", sampled=sampled), PROMPT, ToyChat(), WHOLE
    )
    assert kept.tokens[-4:].tolist() == [SAY, 70, 71, END]
    assert kept.weights[-4:].tolist() == [0, 1, 1, 1]
    other = encode(
        selection([0.0, 1.0, 0.0], tokenizer="other", sampled=sampled), PROMPT, ToyChat(), WHOLE
    )
    assert other.tokens[-5:].tolist() == [SAY, 13, 12, 13, END]


def test_provenance_tells_the_verdict_on_each_step():
    example = encode(selection([0.0, 1.0, 0.0], reasons=["a", "b", "c"]), PROMPT, ToyChat(), WHOLE)
    assert example.id == "t0:s0@0"
    assert example.provenance["trajectory"] == "t0"
    assert example.provenance["task"] == "toy/train/0"
    verdicts = json.loads(example.provenance["steps"])
    assert [(v["weight"], v["reason"]) for v in verdicts] == [(0.0, "a"), (1.0, "b"), (0.0, "c")]


def test_counts_are_conserved_and_long_examples_counted():
    selections = [selection([1.0, 0.0, 0.0]), selection([0.0] * 3), selection([0.0, 0.0, 1.0])]
    examples, counts = encode_all(
        selections, lambda task: PROMPT, ToyChat(), Options(max_length=20)
    )
    assert len(examples) == 1
    assert counts == Counts(
        selections=3,
        examples=1,
        unweighted=1,
        too_long=1,
        tokens=12,
        weighted_tokens=3,
        steps=9,
        weighted_steps=1,
    )


@pytest.mark.parametrize(
    ("weights", "reasons", "message"),
    [
        ([1.0], ["a"], "1 weights and 1 reasons for 3 steps"),
        ([1.0, 0.0, 0.0], ["a"], "3 weights and 1 reasons for 3 steps"),
        ([0.0, 0.0, 0.0], None, "no step with a weight"),
    ],
)
def test_a_selection_that_cannot_be_encoded_is_refused(weights, reasons, message):
    with pytest.raises(DataError, match=message):
        encode(selection(weights, reasons=reasons), PROMPT, ToyChat(), WHOLE)


def test_having_nothing_to_learn_is_refused_with_what_it_was_lost_to():
    selections = [selection([1.0, 1.0, 1.0]), selection([0.0, 0.0, 0.0])]
    _, counts = encode_all(selections, lambda task: PROMPT, ToyChat(), Options(max_length=5))
    with pytest.raises(
        DataError, match=r"all 1 .* longer than a row of 5 .*config\.train\.seq_len"
    ):
        check_learnable(counts, name="round_0/select", max_length=5)
    _, counts = encode_all(selections[1:], lambda task: PROMPT, ToyChat(), Options(max_length=5))
    with pytest.raises(DataError, match="none of the 1 selected trajectories has a step with"):
        check_learnable(counts, name="round_0/select", max_length=5)
    with pytest.raises(DataError, match="no trajectory was selected"):
        check_learnable(Counts(), name="round_0/select", max_length=5)


def test_observations_have_their_own_weight_from_the_second_on():
    options = Options(max_length=1000, observation_weight=0.25)
    example = encode(selection([1.0, 0.0, 1.0]), PROMPT, ToyChat(), options)
    expected = [0] * 9 + [1] * 3 + [0.25] * 4 + [0] * 4 + [0.25] * 4 + [1, 1]
    assert example.weights.tolist() == expected


def test_a_mark_begins_the_first_user_message():
    marked = dataclasses.replace(selection([1.0, 0.0, 0.0]), mark="abcde")
    plain = encode(selection([1.0, 0.0, 0.0]), PROMPT, ToyChat(), WHOLE).tokens.tolist()
    example = encode(marked, PROMPT, ToyChat(), WHOLE)
    assert example.tokens.tolist() == [*plain[:5], 15, *plain[5:]]
    assert example.weights[-3:].tolist() == [1, 1, 1]


def sides(pair="p", weights=(1.0, 0.0, 0.0)):
    one = dataclasses.replace(selection(weights), pair=pair, advantages=(1.0,) * 3)
    return [one, dataclasses.replace(one, advantages=(-1.0,) * 3)]


def test_a_pair_has_the_sign_of_each_side_and_is_kept_together():
    alone = selection([1.0, 0.0, 0.0])
    pairs = [alone, *sides(), *sides("long", (0.0, 0.0, 1.0))]
    examples, counts = encode_all(pairs, lambda task: PROMPT, ToyChat(), Options(max_length=30))
    assert [example.pair for example in examples] == ["", "p", "p"]
    assert len({example.id for example in examples}) == 2
    assert [sorted(set(e.columns["advantages"].tolist())) for e in examples] == [
        [0.0],
        [0.0, 1.0],
        [-1.0, 0.0],
    ]
    assert set(examples[0].columns) == {"advantages"}
    assert (counts.selections, counts.examples, counts.too_long) == (5, 3, 2)


@pytest.mark.parametrize("broken", [sides()[:1], sides()[::-1], [*sides()[:1], *sides("q")[1:]]])
def test_a_pair_without_two_sides_is_refused(broken):
    with pytest.raises(DataError, match="no two sides in a row"):
        encode_all(broken, lambda task: PROMPT, ToyChat(), WHOLE)


def sampled(ids, logps, *, source="policy", advantage=-0.5):
    """A selection whose middle step was sampled, for the policy gradient."""
    made = selection([0.0, 1.0, 0.0], tokenizer="toy", sampled=((), ids, ()))
    steps = list(made.trajectory.steps)
    steps[1] = dataclasses.replace(steps[1], source=source, logprobs=logps)
    trajectory = dataclasses.replace(made.trajectory, steps=tuple(steps))
    return dataclasses.replace(
        made, trajectory=trajectory, advantages=(0.0, advantage, 0.0), role="pg"
    )


def test_the_policy_gradient_gets_what_was_sampled():
    options = Options(max_length=1000, observation_weight=0.25, temperature=0.8)
    selections = [sampled((70, 71, END), (-1.0, -2.0, -3.0)), selection([0.0, 1.0, 0.0])]
    examples, _ = encode_all(selections, lambda task: PROMPT, ToyChat(), options)
    columns = {name: values[-4:].tolist() for name, values in examples[0].columns.items()}
    assert columns == {
        "advantages": [0, -0.5, -0.5, -0.5],
        "sampled_logps": [0, -1, -2, -3],
        "temperatures": pytest.approx([0, 0.8, 0.8, 0.8]),
    }
    assert examples[0].weights[-4:].tolist() == [0.25, 1, 1, 1]
    assert set(examples[1].columns) == set(columns)
    assert not any(values.any() for values in examples[1].columns.values())


def test_an_end_of_turn_that_was_not_sampled_has_no_policy_gradient():
    class Ending(ToyChat):
        def example(self, messages, tokens):
            ended = [(*ids, END) if ids and ids[-1] != END else ids for ids in tokens]
            return super().example(messages, ended)

    cut = sampled((70, 71), (-1.0, -2.0))
    columns = ("advantages", "sampled_logps", "temperatures")
    example = encode(cut, PROMPT, Ending(), WHOLE, columns)
    assert example.tokens[-3:].tolist() == [70, 71, END]
    assert example.weights[-3:].tolist() == [1, 1, 0]
    assert example.columns["temperatures"][-3:].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    "broken",
    [
        sampled((), ()),
        sampled((70, END), ()),
        sampled((70, END), (-1.0, -1.0), source="expert"),
    ],
    ids=["no ids", "no log-probabilities", "an expert's"],
)
def test_a_policy_gradient_of_what_was_not_sampled_is_refused(broken):
    with pytest.raises(DataError, match="not sampled by this run's policy"):
        encode_all([broken], lambda task: PROMPT, ToyChat(), WHOLE)


def test_an_expert_step_has_its_weight_alone():
    expert = sampled((), (), source="expert", advantage=0.0)
    (example,), _ = encode_all([expert], lambda task: PROMPT, ToyChat(), WHOLE)
    assert example.weights[-4:].tolist() == [1, 1, 1, 1]
    assert not example.columns["temperatures"].any()


@pytest.mark.parametrize("field", [{"weights": (-1.0, 1.0, 0.0)}, {"advantages": (1.0,)}])
def test_negative_weights_and_missing_advantages_are_refused(field):
    broken = dataclasses.replace(selection([0.0, 1.0, 0.0]), **field)
    with pytest.raises(DataError, match="weights of 0 or more"):
        encode(broken, PROMPT, ToyChat(), WHOLE)
