"""The runner of `benchmarks.train` for this package; same protocol as `train.torch_peft`."""

import json
import resource
import sys
import time
from typing import Any

import jax
import numpy as np

from eef_jax import sharding
from eef_jax.config.sections import LoraConfig, OptimizerConfig
from eef_jax.data.batches import Batches
from eef_jax.models.config import ModelOptions
from eef_jax.models.huggingface import folder as hf
from eef_jax.train import state, step
from eef_jax.train.optim import make_optimizer
from eef_jax.types import Example


class Trainer:
    """A model under LoRA and its compiled step."""

    def __init__(self, job: dict[str, Any]):
        self._job = job
        self._mesh = sharding.make_mesh({"data": -1})
        lora = LoraConfig(rank=job["rank"], alpha=2.0 * job["rank"])
        model = hf.load(job["model"], ModelOptions(lora=lora), mesh=self._mesh)
        optimizer = make_optimizer(
            OptimizerConfig(learning_rate=1e-4, schedule="constant", warmup_ratio=0.0), 1
        )
        self._step = step.make_step(model, optimizer, mesh=self._mesh)
        self._frozen = model.frozen
        self._state = state.create(model, optimizer, mesh=self._mesh, seed=0)

    def train(self, examples: list[Example]) -> dict[str, Any]:
        """A step on each packed batch."""
        sizes = {name: self._job[name] for name in ("batch_size", "seq_len", "max_loss_positions")}
        losses = []
        began = time.perf_counter()
        batches = Batches(examples=examples, shuffle=False, **sizes)
        count = batches.steps(1)
        for batch, _ in batches.iterate():
            put = step.put_batch(batch, self._mesh, batch_size=batches.batch_size)
            self._state, scalars = self._step(self._state, self._frozen, put)
            losses.append(float(scalars["loss"]))
            if len(losses) == count:
                break
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {
            "seconds": seconds,
            "padded_tokens": count * sizes["batch_size"] * sizes["seq_len"],
            "steps": count,
            "loss": losses[0],
            "peak_gib": peak,
        }


def main() -> None:
    """Read a job, then train on the slice of each line of standard input."""
    job = json.loads(sys.stdin.readline())
    trainer = Trainer(job)
    print(json.dumps({"versions": {"jax": jax.__version__}}), flush=True)
    for line in sys.stdin:
        examples = [
            Example(
                id=str(number),
                tokens=np.array(example["tokens"], np.int32),
                weights=np.array(example["learned"], np.float32),
            )
            for number, example in enumerate(json.loads(line))
        ]
        print(json.dumps(trainer.train(examples)), flush=True)


if __name__ == "__main__":
    main()
