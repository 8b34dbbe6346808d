"""Tiny random models of transformers in torch, made and run: what ours are compared with."""

import numpy as np
import torch
import transformers

from tests.models.toys import TINY

PADS = [(0, 0), (0, 12), (17, 0)]  # left and right of each row
LENGTH = 45  # beyond the toys' windows


def config(model_type: str, **changes):
    """The config of a tiny model in transformers: the fields of `TINY` that its class has."""
    empty = transformers.AutoConfig.for_model(model_type)
    if not hasattr(empty, "text_config"):
        known = {*empty.to_dict(), "sliding_window_pattern"}
        fields = {name: value for name, value in TINY.items() if name in known}
        fields |= {"initializer_range": 0.3, **changes}
        return transformers.AutoConfig.for_model(model_type, **fields)
    vision = dict.fromkeys(("hidden_size", "intermediate_size", "image_size", "patch_size"), 8)
    return transformers.AutoConfig.for_model(
        model_type,
        text_config=config(empty.text_config.model_type, **changes).to_dict(),
        vision_config={**vision, "num_hidden_layers": 1, "num_attention_heads": 1},
        mm_tokens_per_image=1,
    )


def make(model_type: str, **changes) -> transformers.PreTrainedModel:
    """A model whose every parameter is random and shows in the logits, norms and biases too."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        config(model_type, **changes), attn_implementation="eager"
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, positions and segment ids of rows with padding on either side."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, TINY["vocab_size"], (len(PADS), LENGTH)).astype(np.int32)
    segments = np.ones_like(tokens)
    for row, (left, right) in enumerate(PADS):
        segments[row, :left] = segments[row, LENGTH - right :] = 0
    positions = np.maximum(np.cumsum(segments, axis=1) - 1, 0).astype(np.int32)
    return tokens, positions, segments


def logits(model, tokens: np.ndarray, positions: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The scores [b, t, v] of rows of one segment each."""
    with torch.no_grad():
        out = model(
            input_ids=torch.from_numpy(tokens).long(),
            position_ids=torch.from_numpy(positions).long(),
            attention_mask=torch.from_numpy(segments).long(),
        )
    return out.logits.float().numpy()
