"""What tests refuse: arrays of another shape or dtype than annotated, and implicit promotions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from eef_jax import kernels
from eef_jax.engine import request
from eef_jax.models import rope
from eef_jax.models.cache import DecodeView
from eef_jax.train.losses.base import log_probs

SPEC = kernels.AttentionSpec(scale=1.0)


def attend(rows=2, dtype=jnp.float32, ids_dtype=jnp.int32):
    """Attention of two rows, with segment ids of this number of rows."""
    q = jnp.ones((2, 2, 3, 4), dtype)
    ids = jnp.ones((rows, 3), ids_dtype)
    return kernels.attention(q, q, q, ids, SPEC, implementation="xla")


def test_annotated_arrays_pass():
    assert attend().shape == (2, 2, 3, 4)


def test_a_shape_that_differs_between_arguments_is_refused():
    with pytest.raises(TypeCheckError, match="segment_ids"):
        attend(rows=3)


def test_another_dtype_is_refused():
    with pytest.raises(TypeCheckError, match="segment_ids"):
        attend(ids_dtype=jnp.float32)
    with pytest.raises(TypeCheckError, match=r"parameter 'q'"):
        attend(dtype=jnp.int32)


def test_shapes_are_checked_while_a_program_is_traced():
    with pytest.raises(TypeCheckError, match="segment_ids"):
        jax.eval_shape(lambda: attend(rows=3))


def test_every_package_that_computes_with_arrays_is_checked():
    positions = jnp.zeros((2, 3), jnp.int32)
    angles = rope.rotary_embedding(positions, head_dim=4, theta=10.0, scaling=None)
    with pytest.raises(TypeCheckError, match="angles"):
        rope.apply_rotary(jnp.ones((2, 4, 1, 4)), angles)
    with pytest.raises(TypeCheckError, match="known"):
        request.prompt_tags([1, 2], np.zeros(1, np.int32))
    hidden, tokens = jnp.ones((2, 3, 4)), jnp.zeros((2, 3), jnp.int32)
    with pytest.raises(TypeCheckError, match="temperatures"):
        log_probs(lambda x: x, hidden, tokens, tokens, jnp.ones((2, 4)))


def test_a_result_of_another_shape_is_refused(monkeypatch):
    wrong = lambda q, k, v, segment_ids, spec: q[:, :1]
    monkeypatch.setitem(kernels.IMPLEMENTATIONS, "wrong", wrong)
    q = jnp.ones((2, 2, 3, 4))
    with pytest.raises(TypeCheckError, match="return value"):
        kernels.attention(q, q, q, jnp.ones((2, 3), int), SPEC, implementation="wrong")


def view(rows):
    """A view of two rows whose block tables have this number of rows."""
    return DecodeView(
        positions=np.zeros(2, np.int32), table=np.zeros((rows, 1), np.int32), attention="pages"
    )


def test_fields_are_checked_but_a_tree_may_hold_what_is_no_array():
    with pytest.raises(TypeCheckError, match="DecodeView"):
        view(rows=3)
    assert jax.tree.map(np.shape, view(rows=2)).table == (2, 1)


@pytest.mark.parametrize("other", [jnp.bfloat16, jnp.int32])
def test_dtypes_are_not_promoted_silently(other):
    with pytest.raises(jax.dtypes.TypePromotionError):
        jnp.ones(2) + jnp.ones(2, other)


def test_ranks_are_not_promoted_silently():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)
