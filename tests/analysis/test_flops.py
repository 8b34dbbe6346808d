"""FLOPs by hand against those of the compiled step, and what does not fit."""

import dataclasses
import functools

import numpy as np
import pytest

from eef_jax.analysis import count, flops, hlo, programs
from eef_jax.analysis import micro_batch as micro_batch_lib
from eef_jax.analysis.chips import CHIPS, Slice
from eef_jax.analysis.roofline import roofline
from eef_jax.data.batches import empty
from eef_jax.errors import ConfigError
from eef_jax.kernels import xla
from eef_jax.models.config import LoraConfig, ModelConfig
from eef_jax.models.huggingface import folder as hf
from eef_jax.sharding import make_mesh
from eef_jax.train import step
from eef_jax.train.optim import OptimizerConfig, make_optimizer

CONFIG = ModelConfig(
    vocab_size=512, d_model=128, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=32, d_ff=512
)
LENGTH = 512


def model(lora=LoraConfig(rank=4), **options):  # noqa: B008
    return hf.abstract(CONFIG, lora=lora, dtype="bfloat16", scan=True, **options)


@functools.cache
def counts(remat, sizes=(("data", 8),), lora=LoraConfig(rank=4)):  # noqa: B008
    mesh = make_mesh(dict(sizes))
    batch = empty(8, LENGTH, LENGTH)
    optimizer = make_optimizer(OptimizerConfig(), 1)
    lowered = step.lower(model(lora, remat=remat), optimizer, batch, mesh=mesh)
    return count.count(hlo.parse(lowered.compile().as_text()))


@pytest.mark.parametrize("remat", ["none", "block"])
def test_the_compiled_step_does_what_is_counted_by_hand(remat):
    made = model(remat=remat)
    load = programs.load(make_mesh({"data": 8}), empty(8, LENGTH, LENGTH))
    attention = flops.attention(CONFIG, load, share=flops.seen(LENGTH, xla.BLOCK))
    expected = flops.done(made, load, remat=remat, attention=attention, chunked=True)
    np.testing.assert_allclose(counts(remat).flops, expected, rtol=0.05)


def test_useful_work_is_4nd_with_an_adapter_and_6nd_without():
    load = flops.Load(tokens=1000, learned=100, length=LENGTH)
    body = 3 * (128 * 32 * (4 + 2) * 2 + 3 * 128 * 512)
    head = 512 * 128
    assert flops.useful(model(), load) == 4 * (body * 1000 + head * 100)
    assert flops.useful(model(None), load) == 6 * (body * 1000 + head * 100)
    assert flops.useful(model(), dataclasses.replace(load, share=0.5)) == 2 * (
        body * 1000 + head * 100
    )


def test_fsdp_gathers_weights_and_leaves_activations_where_they_are():
    wires = counts("block", (("fsdp", 8),)).wires
    gathered = sum(wire.bytes for wire in wires if wire.kind == "all-gather")
    others = sum(wire.bytes for wire in wires if wire.kind != "all-gather")
    layers = 2 * flops.sizes(model()).body  # bytes in bfloat16
    assert layers < gathered < 5 * layers
    assert others < layers


def test_a_roofline_is_the_longest_and_the_sum_of_its_parts():
    where = Slice(chip=CHIPS["TPU v5 lite"], axes=(4, 4))
    wire = count.Wire(kind="all-gather", group=16, count=1, bytes=90e9)
    made = count.Counts(flops=197e12 * 2, kernel_flops=0.0, memory=819e9 / 2, wires=(wire,))
    roof = roofline(made, where, useful=197e12)
    assert (roof.compute, roof.memory, roof.wires) == (2.0, 0.5, 1.0)  # two lines of 45 GB/s
    assert (roof.shortest, roof.longest, roof.bound) == (2.0, 3.5, "compute")
    assert roof.mfu == 0.5
    assert roof.mfu_alone == 1 / 3.5


def test_rings_carry_twice_what_lines_do():
    v5e = CHIPS["TPU v5 lite"]
    assert Slice(chip=v5e, axes=(16, 16)).wire_rate(256) == 4 * v5e.link
    assert Slice(chip=v5e, axes=(16, 16)).wire_rate(16) == 2 * v5e.link
    assert Slice(chip=v5e, axes=(4, 4)).wire_rate(16) == 2 * v5e.link
    assert Slice(chip=v5e, axes=()).wire_rate(1) == v5e.link


def accumulate(micro_batch, rows=16, **options):
    return micro_batch_lib.accumulate(
        micro_batch,
        model(remat="block"),
        mesh=make_mesh({"data": 8}),
        rows=rows,
        length=LENGTH,
        learned=16,
        optimizer=OptimizerConfig(),
        **options,
    )


def test_micro_batches_are_rows_of_a_device():
    assert accumulate(0) == 1
    assert accumulate(1) == 2
    assert accumulate(2) == 1
    with pytest.raises(ConfigError, match=r"micro_batch = 3: expected .* divisor of the 2 rows"):
        accumulate(3)
    with pytest.raises(ConfigError, match="multiple of 8"):
        accumulate(1, rows=12)


def test_auto_takes_the_most_rows_that_fit(monkeypatch):
    assert accumulate("auto") == 1
    tried = []

    def memory(program):
        tried.append(program)
        return programs.Memory(arguments=0, temporaries=[9, 4][len(tried) - 1], outputs=0, code=0)

    monkeypatch.setattr(programs, "memory", memory)
    monkeypatch.setattr(micro_batch_lib, "capacity", lambda device: 5.0)
    assert accumulate("auto") == 2
    assert len(tried) == 2
    tried.clear()  # with a byte taken by others, four no longer fit
    with pytest.raises(programs.OutOfMemory, match="that are free"):
        accumulate("auto", beside=2)


def test_a_program_that_does_not_fit_says_why_and_what_helps():
    class Lowered:
        def compile(self):
            import jax

            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
                "space hbm. Used 20.51G of 15.75G hbm. Exceeded hbm capacity by 4.76G.\n\nTotal"
            )

    with pytest.raises(programs.OutOfMemory, match=r"(?s)Used 20.51G of 15.75G.*micro_batch=1"):
        programs.build("train", Lowered())
