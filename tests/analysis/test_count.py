"""Counts from HLO equal those by hand, on programs compiled here and on HLO of a TPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from eef_jax.analysis import count, hlo
from eef_jax.sharding import make_mesh

pytestmark = pytest.mark.optimized

# HLO of XLA:TPU for a loop that gathers a weight while it multiplies with the previous one: the
# steps of the gather share a channel, arrays in S(1) are on chip, the bound is in the condition.
TPU = """HloModule jit_f, is_scheduled=true

%part (p.0: bf16[4,128], p.1: bf16[64,128], p.2: bf16[128,128]) -> (bf16[64,128], bf16[64,128]) {
  %p.0 = bf16[4,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %p.1 = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(1)
  %p.2 = bf16[128,128]{1,0:T(8,128)(2,1)} parameter(2)
  %gather.1 = bf16[64,128]{1,0:T(8,128)(2,1)} all-gather(%p.0), channel_id=9, replica_groups=mesh['axis_0'=16] {'axis_0'}, dimensions={0}
  %product = bf16[64,128]{1,0:T(8,128)(2,1)} convolution(%p.1, %p.2), dim_labels=bf_io->bf
  ROOT %both = (bf16[64,128]{1,0}, bf16[64,128]{1,0}) tuple(%product, %gather.1)
}

%start (q.0: bf16[4,128]) -> bf16[64,128] {
  %q.0 = bf16[4,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  ROOT %gather.0 = bf16[64,128]{1,0:T(8,128)(2,1)} all-gather(%q.0), channel_id=9, replica_groups=mesh['axis_0'=16] {'axis_0'}, dimensions={0}
}

%body (b: (s32[], bf16[64,128])) -> (s32[], bf16[64,128]) {
  %b = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%b), index=0
  %x = bf16[64,128]{1,0:T(8,128)(2,1)} get-tuple-element(%b), index=1
  %w = bf16[4,128]{1,0:T(8,128)(2,1)S(1)} custom-call(), custom_call_target="AllocateBuffer"
  %v = bf16[128,128]{1,0:T(8,128)(2,1)S(1)} custom-call(), custom_call_target="AllocateBuffer"
  %begun = bf16[64,128]{1,0:T(8,128)(2,1)} fusion(%w), kind=kCustom, calls=%start
  %y = (bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[64,128]{1,0:T(8,128)(2,1)}) fusion(%w, %x, %v), kind=kOutput, calls=%part
  %kernel = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}
  %z = bf16[64,128]{1,0:T(8,128)(2,1)} get-tuple-element(%y), index=0
  ROOT %t = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)}) tuple(%i, %z)
}

%bound (c: (s32[], bf16[64,128])) -> pred[] {
  %n = s32[]{:T(128)} constant(32)
  %c = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %lt = pred[]{:T(512)} compare(%j, %n), direction=LT
}

ENTRY %main (a: bf16[64,128]) -> bf16[64,128] {
  %a = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %first = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)}) tuple(%zero, %a)
  %loop = (s32[]{:T(128)}, bf16[64,128]{1,0:T(8,128)(2,1)}) while(%first), condition=%bound, body=%body
  ROOT %out = bf16[64,128]{1,0:T(8,128)(2,1)} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


def counted(function, *arguments, **options):
    text = jax.jit(function, **options).lower(*arguments).compile().as_text()
    return count.count_program(hlo.parse(text))


def test_loop_bodies_count_once_per_iteration():
    def chain(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    x, weights = jnp.ones((8, 64)), jnp.ones((5, 64, 64))
    assert counted(chain, x, weights).flops == 5 * 2 * 8 * 64 * 64
    nested = lambda x, w: jax.lax.fori_loop(0, 3, lambda _, y: chain(y, w), x)
    assert counted(nested, x, weights).flops == 3 * 5 * 2 * 8 * 64 * 64


def test_flops_of_batched_products_and_their_gradients():
    x, y = jnp.ones((4, 16, 32)), jnp.ones((4, 32, 8))
    product = lambda x, y: jnp.sum(jnp.sin(jnp.einsum("bij,bjk->bik", x, y)))
    once = 2 * 4 * 16 * 32 * 8
    assert counted(product, x, y).flops == once
    assert counted(jax.grad(product, (0, 1)), x, y).flops == 3 * once


def test_a_scan_reads_one_layer_of_its_stacked_weights_per_iteration():
    weights = jnp.ones((50, 64, 64))
    chain = lambda x, w: jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]
    read = counted(chain, jnp.ones((8, 64)), weights).memory
    # XLA:CPU copies a layer out before it multiplies: three times its bytes, not 50 times all.
    assert weights.nbytes < read < 4 * weights.nbytes


def test_collectives_are_counted_by_kind_and_group_size():
    mesh = make_mesh({"data": 2, "fsdp": 4})
    rows = NamedSharding(mesh, PartitionSpec("data"))
    split = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    whole = NamedSharding(mesh, PartitionSpec())
    x = jax.device_put(jnp.ones((8, 64)), split)
    (collective,) = counted(lambda x: x, x, out_shardings=whole).collectives
    assert (collective.kind, collective.group, collective.count) == ("all-gather", 4, 1)
    assert collective.bytes == 8 * 64 * 4 * 3 / 4
    y = jax.device_put(jnp.ones((8, 64)), rows)
    (collective,) = counted(lambda y: y.sum(0), y, out_shardings=whole).collectives
    assert (collective.kind, collective.group) == ("all-reduce", 2)
    assert collective.bytes == 2 * 64 * 4 / 2


def test_an_asynchronous_gather_in_a_tpu_program_counts_once():
    counts = count.count_program(
        hlo.parse(TPU), kernel=lambda name, operands: 7.0 * operands[0].size
    )
    kernel = 32 * 7 * 64 * 128
    assert counts.kernel_flops == kernel
    assert counts.flops == 32 * 2 * 64 * 128 * 128 + kernel
    (collective,) = counts.collectives
    assert (collective.kind, collective.group, collective.count) == ("all-gather", 16, 32)
    assert collective.bytes == 32 * 64 * 128 * 2 * 15 / 16
    # An iteration writes the gathered weight and the product, and reads x twice (kernel, product).
    assert counts.memory == 32 * (64 * 128 * 2) * 4


@pytest.mark.parametrize("fused", [False, True])
def test_an_update_in_place_counts_the_update_and_not_the_array(fused):
    scatter = (
        "f32[4096,64]{1,0} scatter(%a, %i, %u), update_window_dims={1}, inserted_window_dims={0}, "
        "scatter_dims_to_operand_dims={0}, index_vector_dim=1, to_apply=%put"
    )
    inputs = """  %a = f32[4096,64]{1,0} parameter(0)
  %i = s32[8,1]{1,0} parameter(1)
  %u = f32[8,64]{1,0} parameter(2)
"""
    head = "(a: f32[4096,64], i: s32[8,1], u: f32[8,64]) -> f32[4096,64] {\n"
    inside = f"%fused {head}{inputs}  ROOT %s = {scatter}\n}}\n\n" if fused else ""
    fusion = "f32[4096,64]{1,0} fusion(%a, %i, %u), kind=kLoop, calls=%fused"
    text = f"HloModule m\n\n{inside}ENTRY %main {head}{inputs}"
    text += f"  ROOT %r = {fusion if fused else scatter}\n}}\n"
    update, indices = 8 * 64 * 4, 8 * 4
    assert count.count_program(hlo.parse(text)).memory == 2 * update + (indices if fused else 0)


def test_a_batched_product_written_as_a_convolution_counts_no_padding():
    window = "window={size=4 stride=3 pad=3_3 lhs_dilate=4}"
    lines = f"""HloModule m

ENTRY %main (a: bf16[4,8,16], b: bf16[4,16,32]) -> bf16[8,4,32] {{
  %a = bf16[4,8,16]{{2,1,0}} parameter(0)
  %b = bf16[4,16,32]{{2,1,0}} parameter(1)
  ROOT %c = bf16[4,8,32]{{2,1,0}} convolution(%a, %b), {window}, dim_labels=0bf_0io->0bf
}}
"""
    counts = count.count_program(hlo.parse(lines))
    positions = sum(
        (o * 3 + k - 3) % 4 == 0 and 0 <= o * 3 + k - 3 <= 12 for o in range(4) for k in range(4)
    )
    assert positions == 4
    assert counts.flops == 4 * 2 * 8 * 16 * 32


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1},{2,3}}", 2),
        ("replica_groups=[2,8]<=[16]", 8),
        ("replica_groups=[4,4]<=[4,4]T(1,0)", 4),
        ("replica_groups=mesh['axis_0'=16] {'axis_0'}", 16),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=8] {'axis_1'}", 8),
        ("replica_groups=mesh['axis_0'=16] {'axis_0':(1)4}", 4),
    ],
)
def test_group_size_in_all_notations(groups, size):
    lines = f"""HloModule m

ENTRY %main (a: f32[64]) -> f32[64] {{
  %a = f32[64]{{0}} parameter(0)
  ROOT %r = f32[64]{{0}} all-reduce(%a), channel_id=1, {groups}, to_apply=%add
}}
"""
    (collective,) = count.count_program(hlo.parse(lines)).collectives
    assert collective.group == size
    np.testing.assert_allclose(collective.bytes, 2 * 256 * (size - 1) / size)


def test_a_loop_without_a_constant_bound_is_refused():
    loop = jax.jit(functools.partial(jax.lax.while_loop, lambda x: jnp.sum(x) < 9, lambda x: x + x))
    module = hlo.parse(loop.lower(jnp.ones(4)).compile().as_text())
    with pytest.raises(ValueError, match="no constant bound"):
        count.count_program(module)
