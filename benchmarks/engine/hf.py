"""The workload on Hugging Face `generate`: `PYTHON -m benchmarks.engine.hf MODEL EXPERTS`.

Static batches of 16 left-padded contexts, all computed anew in every turn, as most code for tuning
agents does.
"""

import sys

from benchmarks.engine.workload import Outputs, Workload, play_by_turn, print_result, time_run


def main(path: str, experts: str) -> None:
    """Time the workload."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.generation_config.eos_token_id = None

    @torch.no_grad()
    def play(workload: Workload) -> Outputs:
        def generate(contexts: list[list[int]]) -> list[list[int]]:
            width = max(map(len, contexts))
            pads = [width - len(ids) for ids in contexts]
            rows = [[0] * pad + ids for pad, ids in zip(pads, contexts, strict=True)]
            seen = [[0] * pad + [1] * (width - pad) for pad in pads]
            out = model.generate(
                input_ids=torch.tensor(rows),
                attention_mask=torch.tensor(seen),
                do_sample=False,
                min_new_tokens=workload.action,
                max_new_tokens=workload.action,
                pad_token_id=0,
            )
            return out[:, width:].tolist()

        contexts = {key: workload.start(*key) for key in workload.episodes()}
        return play_by_turn(contexts, workload, generate, batch=16)

    print_result(time_run(play, experts=int(experts)))


if __name__ == "__main__":
    main(*sys.argv[1:])
