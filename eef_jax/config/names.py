"""Earlier names of config fields, so that an old flag or file is answered with the present name."""

_AXES = ("data", "fsdp", "tensor", "context")

RENAMED: dict[str, str] = {
    "train.rows": "train.batch_size",
    "train.length": "train.seq_len",
    "train.start": "train.init_from",
    "train.lr": "train.optimizer.learning_rate",
    "train.learning_rate": "train.optimizer.learning_rate",
    "train.optimizer.final": "train.optimizer.end_lr_ratio",
    "train.optimizer.clip": "train.optimizer.clip_norm",
    "train.optimizer.warmup": "train.optimizer.warmup_ratio",
    "model.quantise": "model.quantization",
    "model.lora.enable": "model.tuning (lora or full)",
    "local_mesh": "rollout_mesh",
    **{f"local_mesh.{axis}": f"rollout_mesh.{axis}" for axis in _AXES},
    "engine.slots": "engine.max_num_seqs",
    "engine.page": "engine.page_size",
    "engine.pages": "engine.num_pages",
    "engine.tokens": "engine.prefill_tokens",
    "engine.rows": "engine.prefill_seqs",
    "engine.chunk": "engine.prefill_chunk",
    "engine.steps": "engine.decode_steps",
    "rollout.workers": "rollout.env_threads",
    "rollout.max_invalid": "rollout.max_consecutive_invalid",
    "env.human": "env.human_instructions",
    "env.nouns": "env.title_nouns",
    "expert.send_seed": "expert.seed (None: not sent)",
}
