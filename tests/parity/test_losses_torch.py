"""DPO and the policy gradient against their papers' equations in plain torch, loss and gradients.

Inputs are random hidden states and a random head; torch computes the logits of whole sequences, one
after the other, ours those of the learned tokens of packed rows.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from eef_jax.train import losses  # noqa: E402
from eef_jax.train.losses.base import REFERENCE, gather, log_probs  # noqa: E402
from eef_jax.types import Loss  # noqa: E402

ROWS, LENGTHS, WIDTH, VOCABULARY = 3, (7, 5, 6, 4), 16, 40
TOKENS = sum(LENGTHS)
BOUNDS = list(zip(np.cumsum((0, *LENGTHS))[:-1].tolist(), np.cumsum(LENGTHS).tolist(), strict=True))


@pytest.fixture(scope="module")
def inputs():
    """A batch of packed rows of four examples, the first two and the last two pairs."""
    rng = np.random.default_rng(0)
    shape = (ROWS, TOKENS)
    learned = rng.random(shape) < 0.6
    for first, last in BOUNDS:
        learned[:, first], learned[:, last - 1] = False, True
    positions = np.zeros((ROWS, int(learned.sum(1).max())), np.int32)
    for row in range(ROWS):
        places = np.flatnonzero(learned[row])
        positions[row, : places.size] = places
    sampled = learned & (rng.random(shape) < 0.8)
    batch = {
        "tokens": rng.integers(0, VOCABULARY, shape).astype(np.int32),
        "segment_ids": np.tile(np.repeat([1, 2, 3, 4], LENGTHS), (ROWS, 1)).astype(np.int32),
        "weights": learned.astype(np.float32),
        "loss_positions": positions,
        "temperatures": np.where(sampled, 0.7, 0.0).astype(np.float32),
        "sampled_logps": np.where(sampled, rng.uniform(-5, -3, shape), 0).astype(np.float32),
        REFERENCE: np.where(learned, rng.uniform(-5, -3, shape), 0).astype(np.float32),
        "advantages": np.where(sampled, rng.normal(size=shape), 0).astype(np.float32),
    }
    hidden = rng.normal(size=(*shape, WIDTH)).astype(np.float32)
    head = (0.3 * rng.normal(size=(WIDTH, VOCABULARY))).astype(np.float32)
    return batch, hidden, head


def ours(asked, batch, hidden, head):
    loss = losses.make(asked)
    arrays = {name: jnp.asarray(value) for name, value in batch.items()}
    learned = gather(arrays, loss.columns)

    def mean(hidden, head):
        logps = log_probs(
            lambda x: x @ head,
            hidden,
            arrays["tokens"],
            arrays["loss_positions"],
            loss.temperatures(learned),
            chunk=4,
        )
        return loss.numerator(logps, learned)[0] / loss.denominator(learned)

    value, grads = jax.value_and_grad(mean, (0, 1))(jnp.asarray(hidden), jnp.asarray(head))
    return float(value), [np.asarray(grad) for grad in grads]


def theirs(of_logps, batch, hidden, head, temperature=1.0):
    """The loss and gradients of a function of the log-probabilities [row, token] in torch."""
    hidden, head = (torch.tensor(x, requires_grad=True) for x in (hidden, head))
    logits = (hidden @ head)[:, :-1]
    divided = torch.log_softmax(logits / torch.as_tensor(temperature), -1)
    tokens = torch.tensor(batch["tokens"], dtype=torch.int64)[:, 1:, None]
    logps = torch.nn.functional.pad(divided.gather(-1, tokens)[:, :, 0], (1, 0))
    loss = of_logps(logps)
    loss.backward()
    return loss.item(), [hidden.grad.numpy(), head.grad.numpy()]


def assert_close(left, right):
    np.testing.assert_allclose(left[0], right[0], rtol=1e-5)
    for a, b in zip(left[1], right[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo(inputs, beta):
    """Equation 7 of arXiv 2305.18290, as TRL's loss_type="sigmoid"; sums over learned tokens."""
    batch, hidden, head = inputs
    batch = batch | {"advantages": np.where(batch["segment_ids"] % 2 == 1, 1, -1).astype("f4")}
    weights, reference = torch.tensor(batch["weights"]), torch.tensor(batch[REFERENCE])

    def dpo(logps):
        ratios = [((logps - reference) * weights)[:, first:last].sum(1) for first, last in BOUNDS]
        margins = torch.stack([ratios[0] - ratios[1], ratios[2] - ratios[3]])
        return -torch.nn.functional.logsigmoid(beta * margins).mean()

    asked = Loss(name="dpo", options={"beta": beta})
    assert_close(ours(asked, batch, hidden, head), theirs(dpo, batch, hidden, head))


@pytest.mark.parametrize("normalization", ["token", "sequence"])
@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_policy_gradient(inputs, normalization, kl):
    """The clipped surrogate of PPO with the divergence of GRPO (2402.03300), and likelihood."""
    batch, hidden, head = inputs
    sampled = torch.tensor(batch["temperatures"]) > 0
    other = (torch.tensor(batch["weights"]) > 0) & ~sampled
    advantages, old, reference = (
        torch.tensor(batch[name]) for name in ("advantages", "sampled_logps", REFERENCE)
    )
    low, high = 0.1, 0.4

    def loss(logps):
        ratios = (logps - old).exp()
        surrogate = torch.min(ratios * advantages, ratios.clamp(1 - low, 1 + high) * advantages)
        divergence = (reference - logps).exp() - (reference - logps) - 1
        policy = (kl * divergence - surrogate, sampled)
        kinds = [policy, (-logps, other)]
        if normalization == "token":
            total = sum((each * mask).sum() for each, mask in kinds)
            return total / (sampled | other).sum()
        means = [
            each[row, first:last][mask[row, first:last]].mean()
            for each, mask in kinds
            for row in range(ROWS)
            for first, last in BOUNDS
            if mask[row, first:last].any()
        ]
        return torch.stack(means).mean()

    # What divides the logits of a token stands one place before it.
    temperature = np.where(sampled.numpy(), 0.7, 1.0).astype("f4")[:, 1:, None]
    options = {"clip_low": low, "clip_high": high, "normalization": normalization, "kl": kl}
    got = ours(Loss(name="pg", options=options), batch, hidden, head)
    assert_close(got, theirs(loss, batch, hidden, head, temperature))
