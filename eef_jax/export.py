"""Export a checkpoint: `python -m eef_jax.export --checkpoint=runs/demo/round_3/tune --format=...`.

`--format=peft` writes the adapter as a folder that PEFT and vLLM load on top of the base;
`--format=merged` writes the whole model, the adapter folded into its base, as a Hugging Face folder
(weights, config, tokenizer, generation config) that transformers and vLLM load. The folder `--out`
must not exist: it appears when all of it is written. Errors that a user can mend are printed
without a traceback, with exit code 1.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator

from absl import flags
from etils import epath

from eef_jax import bases, cli, lineage
from eef_jax.errors import ConfigError, DataError, check_one_of
from eef_jax.storage import files
from eef_jax.storage.workdir import find_checkpoint
from eef_jax.untrusted import show

FORMATS = ("peft", "merged")
DTYPES = ("", "float32", "bfloat16", "float16")
GENERATION = "generation_config.json"
# What belongs to a tokenizer, in the forms it is saved in; a folder has some of them.
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)


def export(
    checkpoint: epath.PathLike,
    out: epath.PathLike,
    *,
    format: str,
    base: str = "",
    dtype: str = "",
    max_shard: int = 5 * 10**9,
) -> epath.Path:
    """Write a checkpoint's adapter or merged model.

    Args:
        checkpoint: a finished tune stage's folder, or the folder `checkpoint` in it.
        out: the folder to make.
        format: `peft` or `merged`.
        base: the base model, as `bases.find` takes it; "" takes the one that the checkpoint names.
        dtype: type of a merged model's tensors; "" keeps that of the base's parameters.
        max_shard: bytes of weights in one file of a merged model.

    Returns:
        The folder.

    Raises:
        ConfigError: an unknown format or type, a folder that exists, or the format does not fit the
            checkpoint.
        DataError: the checkpoint or the base is missing or damaged, or they do not belong together.
    """
    # Not at the top: --help and a wrong path need no accelerator library.
    from eef_jax.models.config import ModelOptions
    from eef_jax.models.huggingface import folder as hf
    from eef_jax.models.huggingface import peft
    from eef_jax.models.model import content_hash
    from eef_jax.train import checkpoint as checkpoints

    check_one_of("--format", format, FORMATS)
    check_one_of("--dtype", dtype, DTYPES)
    target = files.to_path(out)
    if target.exists():
        raise ConfigError(f"{target} exists: name a folder that does not (--out)")
    source = find_checkpoint(checkpoint)
    note = checkpoints.read_metadata(source)
    lineage.warn_of_stale(source)
    if format == "peft" and note.lora is None:
        raise ConfigError(
            f"{source} tuned all parameters, so there is no adapter: use --format=merged"
        )
    name = base or note.base
    folder = files.to_path(bases.find(name))
    options = ModelOptions(
        lora=note.lora, param_dtype=note.param_dtype, quantization=note.quantization
    )
    if note.lora is None:  # all values are the checkpoint's
        model = hf.abstract_from_folder(folder, options)
    else:
        model = hf.load(folder, options)
    trainable, _ = checkpoints.load_trainable(
        source, model.trainable, base_hash=content_hash(model.frozen)
    )
    model = dataclasses.replace(model, trainable=trainable)
    with _whole(target) as growing:
        if format == "peft":
            repository = bases.on_hub(name)
            peft.save(
                model,
                growing,
                base=repository.id if repository else os.fspath(folder),
                revision=repository.revision if repository else "",
            )
        else:
            _copy_tokenizer(folder, growing)
            raw = files.read_json(folder / hf.CONFIG, remedy=hf.REMEDY)
            hf.save(
                model,
                growing,
                dtype=dtype or note.param_dtype,
                # A text model taken out of a larger one is not what the base's config describes.
                config=raw if raw.get("model_type") == model.config.model_type else None,
                max_shard=max_shard,
            )
    return target


def _copy_tokenizer(source: epath.Path, target: epath.Path) -> None:
    """Copy the tokenizer and the generation config; make the latter where there is none."""
    from eef_jax.text.chat import ChatTokenizer

    for name in (*TOKENIZER, GENERATION):
        if (source / name).exists():
            files.write_bytes(target / name, (source / name).read_bytes())
    if not (target / GENERATION).exists():
        stops = ChatTokenizer.load(os.fspath(source)).stop_ids
        files.write_json(target / GENERATION, {"eos_token_id": list(stops)})


@contextlib.contextmanager
def _whole(target: epath.Path) -> Iterator[epath.Path]:
    """A folder to fill, which becomes `target` when it is full, or is gone when filling fails.

    An object store has no folders to rename: there `target` is filled itself, its config last.
    """
    growing = target
    if files.is_local(target):
        growing = target.with_name(f"{target.name}.{os.getpid()}{files.TEMP_SUFFIX}")
    try:
        growing.mkdir(parents=True, exist_ok=True)
        yield growing
        if growing != target:
            growing.rename(target)
    except BaseException as error:
        growing.rmtree(missing_ok=True)
        if isinstance(error, OSError):
            raise DataError(f"{target} cannot be written: {error}") from error
        raise


def _main() -> None:
    given = flags.FLAGS
    for name in ("checkpoint", "format", "out"):
        if not getattr(given, name):
            raise ConfigError(
                f"no --{name} was given; for example --checkpoint=runs/demo/round_3/tune "
                "--format=peft --out=adapter"
            )
    out = export(
        given.checkpoint,
        given.out,
        format=given.format,
        base=given.base,
        dtype=given.dtype,
        max_shard=int(given.max_shard_gb * 1e9),
    )
    what = "the adapter" if given.format == "peft" else "the merged model"
    show(f"{what} of {given.checkpoint} is in {out}")


def run() -> None:
    """Run the command."""
    # Not at import: another command may define flags of the same names in one process.
    cli.define_path("checkpoint", None, "Folder of a finished tune stage.")
    flags.DEFINE_string("format", None, f"What to write: {' or '.join(FORMATS)}.")
    cli.define_path("out", None, "Folder to make.")
    cli.define_path("base", "", "Folder of the base model. The one the checkpoint names.")
    flags.DEFINE_string("dtype", "", "Type of a merged model's tensors. The base's parameters'.")
    flags.DEFINE_float("max_shard_gb", 5.0, "Weights in one file of a merged model, in 10^9 bytes.")
    cli.run(_main)


if __name__ == "__main__":
    run()
