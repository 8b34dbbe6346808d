"""Sessions: what is appended, generated, forked and cancelled, and what is refused."""

import time
from concurrent.futures import CancelledError, Future

import pytest

from eef_jax.engine.sampling import SamplingParams
from eef_jax.errors import ConfigError
from tests.engine import toymodel
from tests.engine.toymodel import GREEDY, SAMPLED, generate, prompt


def test_a_fork_generates_what_its_session_would(engine):
    one = engine.open(prompt(5, 12))
    one.generate(SAMPLED, (1, 2)).result()
    one.append(prompt(6, 3))
    two = one.fork()
    first, second = one.generate(SAMPLED, (3, 4)).result(), two.generate(SAMPLED, (3, 4)).result()
    assert (first.ids, first.logprobs) == (second.ids, second.logprobs)
    assert one.ids == two.ids and second.prefilled == 1
    third = two.fork()
    third.append(prompt(7, 2))
    assert third.generate(SAMPLED, (5, 6)).result().prefilled == 3  # and the token generated last


def test_tokens_sampled_after_a_stop_fn_returned_true_are_dropped(engine):
    cut = SamplingParams(temperature=0.0, max_new_tokens=6, stop_fn=lambda ids: len(ids) == 1)
    session = engine.open(prompt(5, 9))
    first = session.generate(cut).result()
    assert session.ids == (*prompt(5, 9), *first.ids) and len(first.ids) == 1
    again = session.generate(GREEDY).result()
    assert generate(
        engine, prompt(5, 9), SamplingParams(temperature=0.0, max_new_tokens=7)
    ).ids == (
        *first.ids,
        *again.ids,
    )


def test_a_cancelled_request_leaves_its_session_as_it_was(engine):
    long = SamplingParams(temperature=0.0, max_new_tokens=40)
    session, expected = engine.open(prompt(8, 12)), generate(engine, prompt(8, 12))
    future = session.generate(long)
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result()
    assert session.ids == tuple(prompt(8, 12))
    assert session.generate(GREEDY).result().ids == expected.ids


def test_a_session_can_continue_before_the_callbacks_of_its_future_ran(engine, monkeypatch):
    invoke = Future._invoke_callbacks  # type: ignore[attr-defined]

    def late(future):  # a thread that waits for a future wakes before its callbacks run
        time.sleep(0.05)
        invoke(future)

    monkeypatch.setattr(Future, "_invoke_callbacks", late)
    session = engine.open(prompt(8, 12))
    got = session.generate(GREEDY).result()
    session.append([1, 2])
    assert session.ids == (*prompt(8, 12), *got.ids, 1, 2)
    assert session.generate(GREEDY).result().prefilled == 3


def test_invalid_keys_are_refused(engine):
    for key in ((-1, 0), (0, 1 << 32), (1,), (1, 2, 3)):
        with pytest.raises(ConfigError, match="expected two numbers"):
            engine.open([1]).generate(GREEDY, key)


def test_ids_outside_the_vocabulary_are_refused(engine):
    session = engine.open([0, toymodel.VOCAB - 1])
    for wrong in (-1, toymodel.VOCAB):
        for call in (engine.open, session.append):
            with pytest.raises(ConfigError, match=f"token id {wrong}: .* from 0 to"):
                call([1, wrong])
    assert session.ids == (0, toymodel.VOCAB - 1)


def test_a_session_with_a_request_in_flight_refuses_other_calls(engine):
    session = engine.open(prompt(8, 12))
    future = session.generate(SamplingParams(temperature=0.0, max_new_tokens=40))
    for call in (lambda: session.append([1]), session.fork, lambda: session.generate(GREEDY)):
        with pytest.raises(RuntimeError, match="while it generates"):
            call()
    session.close()
    session.close()
    assert future.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        session.generate(GREEDY)
    with pytest.raises(ConfigError, match="no tokens"):
        engine.open().generate(GREEDY)
