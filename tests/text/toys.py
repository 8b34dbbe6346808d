"""Small tokenizers for tests: byte-level BPE under several chat templates."""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from eef_jax.text.tokenizer import Tokenizer

NANO = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Treats the last assistant message apart, as several reasoning models' templates do.
UNSTABLE = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{{ m['content'] }}{% if loop.last and m['role'] == 'assistant' %} (last){% endif %}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|im_start|>", "<|im_end|>")
_TEXT = ("hello world go left go right click buy now red shoes", "you see a door and a red key")


def tokenizer(template: str = NANO) -> Tokenizer:
    """A byte-level BPE of about 300 ids."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_TEXT, trainer)
    eos = "<|im_end|>" if "im_end" in template else "<|end|>"
    return Tokenizer(backend, template=template, special={"eos_token": eos})
