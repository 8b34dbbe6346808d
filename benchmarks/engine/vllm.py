"""The workload on vLLM with prefix caching: `PYTHON -m benchmarks.engine.vllm MODEL EXPERTS`.

All episodes of a turn are one batch; vLLM's own continuous batching and prefix cache do the rest.
"""

import os
import sys

from benchmarks.engine.workload import Outputs, Workload, play_by_turn, print_result, time_run


def main(path: str, experts: str) -> None:
    """Time the workload."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from vllm import LLM, SamplingParams

    llm = LLM(
        path, dtype="float32", max_model_len=2048, enable_prefix_caching=True, enforce_eager=True
    )

    def play(workload: Workload) -> Outputs:
        sampling = SamplingParams(
            max_tokens=workload.action, ignore_eos=True, temperature=0.0, detokenize=False
        )

        def generate(contexts: list[list[int]]) -> list[list[int]]:
            prompts = [{"prompt_token_ids": ids} for ids in contexts]
            outputs = llm.generate(prompts, sampling, use_tqdm=False)
            return [list(output.outputs[0].token_ids) for output in outputs]

        contexts = {key: workload.start(*key) for key in workload.episodes()}
        return play_by_turn(contexts, workload, generate)

    print_result(time_run(play, experts=int(experts)))


if __name__ == "__main__":
    main(*sys.argv[1:])
