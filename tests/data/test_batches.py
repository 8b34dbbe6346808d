"""Packing, order and resume of batches."""

import dataclasses
import itertools

import numpy as np
import pytest

from eef_jax.data import tfrecord
from eef_jax.data.batches import Batches, Position
from eef_jax.data.stored import StoredExamples
from eef_jax.errors import DataError
from eef_jax.types import Example


def example(number, size, learned=2):
    weights = np.zeros(size, np.float32)
    weights[size - learned :] = 0.5
    return Example(
        id=str(number), tokens=np.arange(size, dtype=np.int32) + 100 * number, weights=weights
    )


def make(sizes=(5, 4, 3, 6, 2), **options):
    settings = {"batch_size": 2, "seq_len": 8, "seed": 3} | options
    return Batches(examples=[example(n + 1, size) for n, size in enumerate(sizes)], **settings)


def first(batches, count, start=None):
    return list(itertools.islice(batches.iterate(start), count))


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])


def test_rows_are_packed_first_fit_token_by_token():
    ((batch, after),) = first(make(sizes=(5, 4, 3), shuffle=False), 1)
    assert batch["tokens"].tolist() == [
        [100, 101, 102, 103, 104, 300, 301, 302],
        [200, 201, 202, 203, 0, 0, 0, 0],
    ]
    assert batch["segment_ids"].tolist() == [[1] * 5 + [2] * 3, [1] * 4 + [0] * 4]
    assert batch["positions"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 3, 0, 0, 0, 0]]
    assert batch["weights"].tolist() == [
        [0, 0, 0, 0.5, 0.5, 0, 0.5, 0.5],
        [0, 0, 0.5, 0.5, 0, 0, 0, 0],
    ]
    assert batch["loss_positions"][:, :4].tolist() == [[3, 4, 6, 7], [2, 3, 0, 0]]
    assert not batch["loss_positions"][:, 4:].any()
    assert after == Position(epoch=1, index=0)


def test_a_first_token_never_has_a_weight():
    batches = Batches(examples=[example(1, 3, learned=3)], batch_size=1, seq_len=4)
    ((batch, _),) = first(batches, 1)
    assert batch["weights"].tolist() == [[0, 0.5, 0.5, 0]]


def test_an_epoch_holds_every_example_once_and_counts_its_padding():
    batches = make()
    for epoch in range(3):
        packing = batches.pack(epoch)
        assert sorted(itertools.chain(*packing.rows)) == list(range(5))
        assert packing.padding == pytest.approx(1 - 20 / (8 * len(packing.rows)))
        assert len(packing.rows) % 2 == 0


def test_loss_positions_of_a_row_are_bounded():
    batches = Batches(
        examples=[example(n, 16, learned=16) for n in range(4)],
        batch_size=1,
        seq_len=64,
        max_loss_positions=31,
    )
    assert all(len(row) == 2 for row in batches.pack(0).rows)


def test_shapes_stay_the_same():
    batches = make()
    shapes = {
        tuple((name, value.shape) for name, value in batch.items())
        for batch, _ in first(batches, 2 * batches.steps(3))
    }
    assert len(shapes) == 1


def test_order_depends_on_seed_and_epoch_alone():
    assert make().pack(1) == make().pack(1)
    big = {"sizes": (2,) * 50}
    packings = [make(**big).pack(0), make(**big).pack(1), make(**big, seed=4).pack(0)]
    assert len({packing.rows for packing in packings}) == 3


def test_any_position_resumes_the_same_stream():
    batches = make(sizes=(5, 4, 3, 6, 2, 7, 8))
    stream = first(batches, 7)
    for done in range(1, 6):
        resumed = first(batches, 7 - done, stream[done - 1][1])
        for (left, at), (right, also_at) in zip(stream[done:], resumed, strict=True):
            assert_equal(left, right)
            assert at == also_at


def test_a_process_lays_out_only_its_rows():
    whole = first(make(batch_size=4), 2)
    evens, odds = (first(make(batch_size=4, process_rows=own), 2) for own in ((0, 2), (1, 3)))
    for step, (batch, position) in enumerate(whole):
        assert evens[step][1] == odds[step][1] == position
        assert_equal({name: value[0::2] for name, value in batch.items()}, evens[step][0])
        assert_equal({name: value[1::2] for name, value in batch.items()}, odds[step][0])


def test_a_process_reads_only_the_examples_of_its_rows(tmp_path, monkeypatch):
    whole = make(sizes=(5, 4, 3, 6, 2, 7, 8, 1), batch_size=4)
    tfrecord.write(tmp_path, whole.examples, shards=2)
    stored, read = StoredExamples(tmp_path), []
    one = StoredExamples.__getitem__
    monkeypatch.setattr(
        StoredExamples, "__getitem__", lambda self, n: read.append(n) or one(self, n)
    )
    mine = make(batch_size=4, process_rows=(1, 3))
    mine = dataclasses.replace(mine, examples=stored)
    assert mine.pack(0) == whole.pack(0) and not read
    steps = whole.steps(1)
    for (left, _), (right, _) in zip(first(whole, steps), first(mine, steps), strict=True):
        assert_equal({name: value[1::2] for name, value in left.items()}, right)
    rows = whole.pack(0).rows
    assert read == [number for row in rows[1::2] for number in row]
    assert len(read) < len(stored)


def test_stats_are_those_of_the_global_batch():
    batches, here = make(), Position()
    for batch, after in first(batches, 7):
        stats = make(process_rows=(0,)).stats(here)
        assert stats.tokens == np.count_nonzero(batch["segment_ids"])
        assert stats.weighted_tokens == np.count_nonzero(batch["weights"])
        assert stats.capacity == batch["tokens"].size
        here = after


def test_counts_before_a_position_are_the_sum_over_its_batches():
    batches, here, total = make(sizes=(5, 4, 3, 6, 2, 7, 8)), Position(), np.zeros(3, int)
    for _, after in first(batches, 7):  # two epochs and a bit
        before = batches.before(here)
        assert (before.tokens, before.weighted_tokens, before.capacity) == tuple(total)
        stats = batches.stats(here)
        total += (stats.tokens, stats.weighted_tokens, stats.capacity)
        here = after
    assert here.epoch == 2


def test_examples_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="'4' has 9 tokens, a row holds 8"):
        make(sizes=(5, 4, 3, 9))
    with pytest.raises(DataError, match="no example to train on"):
        make(sizes=())
    with pytest.raises(DataError, match="'1' has 2 tokens with a weight, a row's limit is 1"):
        make(max_loss_positions=1)


def pair(number, size, learned=2):
    """The two sides of a pair, with a column."""
    return [
        dataclasses.replace(
            example(number + side, size, learned),
            pair=f"p{number}",
            columns={"advantages": np.full(size, 1.0 - 2 * side, np.float32)},
        )
        for side in (0, 1)
    ]


def plain(number, size):
    one = example(number, size)
    return dataclasses.replace(one, columns={"advantages": np.zeros(size, np.float32)})


@pytest.mark.parametrize("stored", [False, True])
def test_the_sides_of_a_pair_share_a_row_in_their_order(tmp_path, stored):
    given = [plain(1, 5), *pair(10, 4), plain(2, 3), *pair(20, 3), *pair(30, 2), plain(3, 6)]
    if stored:
        tfrecord.write(tmp_path, given)
        read = StoredExamples(tmp_path)
        assert read.pairs == [0, 1, 1, 0, 2, 2, 3, 3, 0]
        assert [e.pair for e in read][:3] == ["", "p10", "p10"]
    examples = StoredExamples(tmp_path) if stored else given
    batches = Batches(examples=examples, batch_size=2, seq_len=10, columns=("advantages",))
    for epoch in range(5):
        packing = batches.pack(epoch)
        assert sorted(n for row in packing.rows for n in row) == list(range(9))
        for left in (1, 4, 6):
            (row,) = (row for row in packing.rows if left in row)
            assert row[row.index(left) + 1] == left + 1
    ((batch, _),) = first(dataclasses.replace(batches, shuffle=False, batch_size=4), 1)
    assert batch["advantages"][1].tolist() == [1] * 4 + [-1] * 4 + [0, 0]
    assert batch["segment_ids"][1].tolist() == [1] * 4 + [2] * 4 + [0, 0]


def test_a_pair_longer_than_a_row_is_refused():
    with pytest.raises(DataError, match=r"pair 'p1' has 12 tokens, a row holds 10"):
        Batches(examples=pair(1, 6), batch_size=1, seq_len=10)


def test_a_column_that_the_loss_reads_is_there():
    batches = make(columns=("advantages",))
    with pytest.raises(DataError, match="no column 'advantages'"):
        first(batches, 1)


def test_what_is_computed_at_loss_positions_goes_back_to_the_examples():
    batches = make(sizes=(5, 4, 3), shuffle=False)
    ((batch, _),) = first(batches, 1)
    values = np.take_along_axis(batch["tokens"], batch["loss_positions"], 1).astype(np.float32)
    columns = dict(batches.by_example(Position(), values))
    assert columns[0].tolist() == [0, 0, 0, 103, 104]
    assert columns[1].tolist() == [0, 0, 202, 203]
    assert columns[2].tolist() == [0, 301, 302]
