"""Shapes of models by the fields of their published config.json: facts, no weights.

What `eef_jax.compile` needs of a model; a run takes the same from `config.model.path`.
"""

_LLAMA3 = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_act": "silu",
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131_072,
}

# huggingface.co/meta-llama/Llama-3.1-8B-Instruct
LLAMA3_8B = {
    **_LLAMA3,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}

# huggingface.co/meta-llama/Llama-3.1-70B-Instruct
LLAMA3_70B = {
    **_LLAMA3,
    "hidden_size": 8192,
    "intermediate_size": 28_672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}

# huggingface.co/Qwen/Qwen2.5-1.5B-Instruct
QWEN2_5_1_5B = {
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "rope_theta": 1_000_000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32_768,
    "use_sliding_window": False,
}
