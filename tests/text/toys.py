"""Small tokenizers for tests: byte-level BPE under several chat templates."""

import tokenizers
import transformers
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
# The shapes of released models' templates, in our own words.
LLAMA3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday: {{ strftime_now('%d %b %Y') }}\n\n"
    "{{ system }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_ALTERNATE = (
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
)
# The system message stands before the last user's, so it moves.
MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% endif %}{{ bos_token }}{% for m in messages %}"
    + _ALTERNATE
    + "{% if m['role'] == 'user' %}[INST] {% if loop.last and system is defined %}"
    "{{ system + '\n\n' }}{% endif %}{{ m['content'] }}[/INST]"
    "{% else %}{{ ' ' + m['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)
GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('no system role here') }}{% endif %}{% for m in messages %}"
    + _ALTERNATE
    + "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] + '\n\n' %}{% set messages = messages[1:] %}"
    "{% else %}{% set first = '' %}{% endif %}{% for m in messages %}"
    + _ALTERNATE
    + "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ first if loop.first else '' }}{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
QWEN25 = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Answers after the last user's message are written with their thinking, earlier ones without.
QWEN3 = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% set thinking = m.content.split('</think>')[0] if '</think>' in m.content else '' %}"
    "{% if loop.index0 > ns.last %}<think>\n{{ thinking }}\n</think>\n\n{% endif %}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
# Thinking is begun by the prompt and dropped from history: the ids of a turn are lost.
THINKING = QWEN3.replace(
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}",
    "<think>\n",
)
REAL = {
    "smollm2": CHATML,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "gemma2": GEMMA2,
    "gemma3": GEMMA3,
    "qwen2.5": QWEN25,
    "qwen3": QWEN3,
}
# Treats the last assistant message apart, as several reasoning models' templates do.
UNSTABLE = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{{ m['content'] }}{% if loop.last and m['role'] == 'assistant' %} (last){% endif %}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = (
    "<|system|> <|user|> <|assistant|> <|end|> <|im_start|> <|im_end|> <s> </s> [INST] [/INST] "
    "<|start_header_id|> <|end_header_id|> <|eot_id|> <start_of_turn> <end_of_turn>"
).split()
_TEXT = ("hello world go left go right click buy now red shoes", "you see a door and a red key")


def tokenizer(template: str = NANO, *, stop_ids: tuple[int, ...] = ()) -> Tokenizer:
    """A byte-level BPE of about 300 ids."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_TEXT, trainer)
    ends = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "[/INST]")
    eos = next((end for end in ends if end in template), "<|end|>").replace("[/INST]", "</s>")
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=template, eos_token=eos, bos_token="<s>"
    )
    return Tokenizer(wrapped, stop_ids=stop_ids)


def spelled(tokenizer: Tokenizer, ids) -> str:
    """The text of ids, control tokens included."""
    return tokenizer._backend.decode(list(map(int, ids)), clean_up_tokenization_spaces=False)
