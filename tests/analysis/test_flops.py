"""Analytic FLOPs against the compiled step, rooflines, micro-batches, and programs too large."""

import dataclasses
import functools

import numpy as np
import pytest

from eef_jax.analysis import count, flops, hlo, programs
from eef_jax.analysis import micro_batch as micro_batch_lib
from eef_jax.analysis.chips import CHIPS, Slice
from eef_jax.analysis.roofline import roofline
from eef_jax.config.sections import LoraConfig, OptimizerConfig
from eef_jax.data.batches import empty_batch
from eef_jax.errors import ConfigError
from eef_jax.kernels import xla
from eef_jax.models import build
from eef_jax.models.config import ModelConfig, ModelOptions
from eef_jax.sharding import make_mesh
from eef_jax.train import step
from eef_jax.train.optim import make_optimizer

CONFIG = ModelConfig(
    vocab_size=512, d_model=128, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=32, d_ff=512
)
LENGTH = 512


def model(lora=LoraConfig(rank=4), **options):  # noqa: B008
    return build.abstract_model(
        CONFIG, ModelOptions(lora=lora, dtype="bfloat16", scan_layers=True, **options)
    )


@functools.cache
def counts(remat, sizes=(("data", 8),), lora=LoraConfig(rank=4)):  # noqa: B008
    mesh = make_mesh(dict(sizes))
    batch = empty_batch(8, LENGTH, LENGTH)
    optimizer = make_optimizer(OptimizerConfig(), 1)
    lowered = step.lower(model(lora, remat=remat), optimizer, batch, mesh=mesh)
    return count.count_program(hlo.parse(lowered.compile().as_text()))


@pytest.mark.parametrize("remat", ["none", "block"])
def test_analytic_hardware_flops_equal_those_of_the_compiled_step(remat):
    made = model(remat=remat)
    load = programs.device_load(make_mesh({"data": 8}), empty_batch(8, LENGTH, LENGTH))
    attention = flops.attention_flops(CONFIG, load, share=flops.causal_fraction(LENGTH, xla.BLOCK))
    expected = flops.hardware_flops(made, load, remat=remat, attention=attention, chunked=True)
    np.testing.assert_allclose(counts(remat).flops, expected, rtol=0.05)


def test_model_flops_are_4nd_with_an_adapter_and_6nd_in_full_tuning():
    load = flops.DeviceLoad(tokens=1000, loss_positions=100, seq_len=LENGTH)
    body = 3 * (128 * 32 * (4 + 2) * 2 + 3 * 128 * 512)
    head = 512 * 128
    assert flops.model_flops(model(), load) == 4 * (body * 1000 + head * 100)
    assert flops.model_flops(model(None), load) == 6 * (body * 1000 + head * 100)
    assert flops.model_flops(model(), dataclasses.replace(load, share=0.5)) == 2 * (
        body * 1000 + head * 100
    )


def test_fsdp_gathers_weights_and_does_not_move_activations():
    collectives = counts("block", (("fsdp", 8),)).collectives
    gathered = sum(each.bytes for each in collectives if each.kind == "all-gather")
    others = sum(each.bytes for each in collectives if each.kind != "all-gather")
    layers = 2 * flops.parameter_counts(model()).body  # bytes in bfloat16
    assert layers < gathered < 5 * layers
    assert others < layers


def test_a_roofline_is_bounded_by_the_longest_and_the_sum_of_its_times():
    topology = Slice(chip=CHIPS["TPU v5 lite"], axes=(4, 4))
    collective = count.Collective(kind="all-gather", group=16, count=1, bytes=90e9)
    made = count.ProgramCounts(
        flops=197e12 * 2, kernel_flops=0.0, memory=819e9 / 2, collectives=(collective,)
    )
    roof = roofline(made, topology, model_flops=197e12)
    # Two axes of 45 GB/s each, too short for wraparound links.
    assert (roof.compute, roof.memory, roof.communication) == (2.0, 0.5, 1.0)
    assert (roof.time_overlapped, roof.time_serial, roof.bottleneck) == (2.0, 3.5, "compute")
    assert roof.mfu_overlapped == 0.5
    assert roof.mfu_serial == 1 / 3.5


def test_a_ring_has_twice_the_bandwidth_of_a_line():
    v5e = CHIPS["TPU v5 lite"]
    assert Slice(chip=v5e, axes=(16, 16)).collective_bandwidth(256) == 4 * v5e.ici_bandwidth
    assert Slice(chip=v5e, axes=(16, 16)).collective_bandwidth(16) == 2 * v5e.ici_bandwidth
    assert Slice(chip=v5e, axes=(4, 4)).collective_bandwidth(16) == 2 * v5e.ici_bandwidth
    assert Slice(chip=v5e, axes=()).collective_bandwidth(1) == v5e.ici_bandwidth


def accumulate(micro_batch, batch_size=16, **options):
    return micro_batch_lib.accumulation_steps(
        micro_batch,
        model(remat="block"),
        mesh=make_mesh({"data": 8}),
        batch_size=batch_size,
        seq_len=32,
        max_loss_positions=16,
        optimizer=OptimizerConfig(),
        **options,
    )


def test_micro_batch_counts_rows_per_device():
    assert accumulate(0) == 1
    assert accumulate(1) == 2
    assert accumulate(2) == 1
    with pytest.raises(ConfigError, match=r"micro_batch = 3: expected .* divisor of the 2 rows"):
        accumulate(3)
    with pytest.raises(ConfigError, match="multiple of 8"):
        accumulate(1, batch_size=12)


def test_auto_takes_the_most_rows_that_fit(monkeypatch):
    assert accumulate("auto") == 1
    tried = []

    def memory(program):
        tried.append(program)
        return programs.Memory(arguments=0, temporaries=[9, 4][len(tried) - 1], outputs=0, code=0)

    monkeypatch.setattr(programs, "memory_usage", memory)
    monkeypatch.setattr(micro_batch_lib, "memory_limit", lambda device: 5.0)
    monkeypatch.setattr(programs, "compile_lowered", lambda name, lowered: lowered)
    assert accumulate("auto") == 2
    assert len(tried) == 2
    tried.clear()  # 2 bytes are reserved: 4 no longer fit in 5
    with pytest.raises(programs.OutOfMemory, match="GiB are free"):
        accumulate("auto", reserved=2)


def test_a_program_that_does_not_fit_says_why_and_what_helps():
    class Lowered:
        def compile(self):
            import jax

            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
                "space hbm. Used 20.51G of 15.75G hbm. Exceeded hbm capacity by 4.76G.\n\nTotal"
            )

    with pytest.raises(programs.OutOfMemory, match=r"(?s)Used 20.51G of 15.75G.*micro_batch=1"):
        programs.compile_lowered("train", Lowered())
