"""The runner of `benchmarks.train` on torch + PEFT, for an interpreter that has both.

Reads one JSON line (the job), then a line for each slice to train on, and answers each with JSON.
It is what a user of PEFT would write: a LoRA model of `transformers`, a collator that pads a batch
to its longest example and labels unlearned tokens -100, AdamW, gradient clipping. It does not
import eef_jax, which that interpreter need not have.
"""

import json
import resource
import sys
import time
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad a batch to its longest example."""
    longest = max(len(example["tokens"]) for example in examples)
    shape = len(examples), longest
    ids, labels = np.zeros(shape, np.int64), np.full(shape, -100)
    mask = np.zeros(shape, np.int64)
    for row, example in enumerate(examples):
        size = len(example["tokens"])
        ids[row, :size], mask[row, :size] = example["tokens"], 1
        labels[row, :size] = np.where(np.array(example["learned"]), example["tokens"], -100)
    arrays = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


class Trainer:
    """A model under LoRA and its optimizer."""

    def __init__(self, job: dict[str, Any]):
        torch.manual_seed(0)
        torch.set_num_threads(job["threads"])
        model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
        if job["remat"]:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        lora = LoraConfig(r=job["rank"], lora_alpha=2 * job["rank"], target_modules=targets)
        self._model = get_peft_model(model, lora).train()
        self._trainable = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._trainable, lr=1e-4, weight_decay=0.0)

    def train(self, batches: list[list[dict[str, Any]]]) -> dict[str, Any]:
        """A step on each batch."""
        padded_tokens, losses = 0, []
        began = time.perf_counter()
        for examples in batches:
            batch = collate(examples)
            loss = self._model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._trainable, 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()
            losses.append(loss.item())
            padded_tokens += batch["input_ids"].numel()
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {
            "seconds": seconds,
            "padded_tokens": padded_tokens,
            "steps": len(losses),
            "loss": losses[0],
            "peak_gib": peak,
        }


def main() -> None:
    """Read a job, then train on the slice of each line of standard input."""
    job = json.loads(sys.stdin.readline())
    trainer = Trainer(job)
    print(json.dumps({"versions": {"torch": torch.__version__}}), flush=True)
    for line in sys.stdin:
        examples = json.loads(line)
        size = job["peer_batch_size"]
        batches = [examples[at : at + size] for at in range(0, len(examples), size)]
        print(json.dumps(trainer.train(batches)), flush=True)


if __name__ == "__main__":
    main()
