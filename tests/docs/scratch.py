"""A folder as a new user's clone, with what the documents name: models, files, a server."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers

from eef_jax import bases
from eef_jax.envs import webshop
from eef_jax.experts import webshop as shopper
from eef_jax.models import build
from eef_jax.models.families import registry
from eef_jax.models.huggingface import folder as hf
from eef_jax.types import ChatRequest, Message
from tests.docs.documents import ROOT
from tests.models.toys import tiny
from tests.policies import chatserver
from tests.text import toys

# Folder of a model as documents call it -> its family, and the template its tokenizer has. All have
# the same shape, so that a program which was compiled for one is there for the others.
MODELS = {
    "SmolLM2-135M-Instruct": ("llama", toys.CHATML),
    "Qwen2.5-1.5B-Instruct": ("qwen2", toys.QWEN25),
    "Llama-3.1-8B-Instruct": ("llama", toys.LLAMA3),
    "Llama-3.1-70B-Instruct": ("llama", toys.LLAMA3),
}
# Folder -> the base that ships, whose tokenizer it has.
BASES = {"webshop-base": "nano:webshop", "scienceworld-base": "nano:scienceworld"}
_VOCABULARY = 4096  # rows: more than the ids of any tokenizer here
_VOCABULARIES = {"SmolLM2-135M-Instruct": 40_960}  # the ids that benchmarks.engine draws
_ENDS = ("<|im_end|>", "<|eot_id|>")
_SPECIAL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
_GOLDEN = ROOT / "tests" / "golden" / "webshop_parity"


def make(folder: Path) -> Path:
    """Fill a folder: the checkout's files, small random models, WebShop's files, a checkpoint.

    Returns:
        The folder.
    """
    skipped = shutil.ignore_patterns(".*", "__pycache__", "runs", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=skipped, dirs_exist_ok=True)
    for name, (family, template) in MODELS.items():
        make_weights(folder / name, family, _VOCABULARIES.get(name, _VOCABULARY))
        make_tokenizer(folder / name, template)
    for name, base in BASES.items():
        make_weights(folder / name, "llama")
        for part in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(Path(bases.find(base)) / part, folder / name)
    for file in (_GOLDEN / "data").iterdir():
        shutil.copy(file, folder)
    shutil.copy(_GOLDEN / "nouns_ref.json", folder / "title_nouns.json")
    return folder


def make_weights(folder: Path, family: str, vocabulary: int = _VOCABULARY) -> None:
    """Write config and random weights of a family, one narrow layer, into a Hugging Face folder."""
    config = registry.family(family).config_from_hf(
        tiny(
            family,
            vocab_size=vocabulary,
            num_hidden_layers=1,
            max_position_embeddings=32_768,
            use_sliding_window=False,
        )
    )
    hf.save(build.init(config), folder)


def make_tokenizer(folder: Path, template: str) -> None:
    """Write a tokenizer that knows the shop, and a chat template, into a Hugging Face folder."""
    tokenizer = tokenizers.Tokenizer.from_file(str(Path(bases.WEBSHOP) / "tokenizer.json"))
    tokenizer.add_special_tokens(_SPECIAL)
    eos = next(end for end in _ENDS if end in template)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": eos,
        "pad_token": "<|pad|>",
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a played command: this interpreter first, no settings of the tests.

    XLA compiles without its costly optimizations, and once for all commands.
    """
    ours = ("JAX_", "XLA_", "OPENAI_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept["PATH"] = f"{Path(sys.executable).parent}:{kept['PATH']}"
    kept |= {"JAX_PLATFORMS": "cpu", "OPENAI_API_KEY": "key", "PYTHONUNBUFFERED": "1"}
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(folder / ".jax_cache"))
    kept |= {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        # As the tests' own: the older code generation is quicker to compile.
        "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return kept | more


@contextlib.contextmanager
def served_expert() -> Iterator[str]:
    """A chat server that shops as the scripted expert does; yields its address up to /v1."""
    env = webshop.make(webshop.Config(prompt="react", train_tasks=8, test_tasks=3))
    tasks = {task.goal: task for split in ("train", "dev", "test") for task in env.tasks(split)}

    def answer(body: dict[str, Any]) -> Any:
        messages = tuple(Message(role=m["role"], content=m["content"]) for m in body["messages"])
        found = (
            (number, task)
            for number, message in enumerate(messages)
            for goal, task in tasks.items()
            if goal in message.content
        )
        first, task = next(found, (0, None))
        if task is None:  # the check before a run asks for one word
            return chatserver.reply("ok")
        request = ChatRequest(
            episode="",
            messages=messages,
            tokens=(),
            turn=(len(messages) - first) // 2,
            attempt=0,
            task=task.id,
        )
        # A new one each time: it reads the episode from the messages.
        expert = shopper.make(shopper.Config(), env=env)
        return chatserver.reply(asyncio.run(expert.act(request)).text)

    with chatserver.serve() as server:
        server.otherwise = answer
        yield server.url
