r"""Pretrains a nano base: trains its tokenizer and its weights on a curriculum of exercises.

    python -m pretrain.main --out=DIR --minutes=90
    python -m pretrain.main --out=DIR --minutes=60 --init=eef_jax/bases/webshop --first_batch=6000
    python -m pretrain.main --out=DIR --minutes=30 --curriculum=scienceworld \
        --backbone=eef_jax/bases/webshop --first_batch=1000

Trains all weights of the project's own decoder on generated exercises only: no expert trajectory,
no task of any split. The data are deterministic, the length of the run is not, because it ends by
the clock. A stopped run continues from `DIR/state.npz`, which is written every two minutes.
`python -m pretrain.probe --path=DIR` measures what the base has learned.
"""

import dataclasses
import pathlib
import shutil
from typing import Any

import tokenizers
from absl import flags

from eef_jax import cli
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.model import Model
from pretrain import tokenizer as tokenizer_training
from pretrain.batches import background_batches
from pretrain.curricula import CURRICULA, Curriculum
from pretrain.model import init_model, model_config
from pretrain.training import TrainingState, make_optimizer, make_update, train
from pretrain.warm_start import transplant

FLAGS = flags.FLAGS


def main() -> None:
    """Train until the schedule is over, then write the Hugging Face folder."""
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    curriculum = CURRICULA[FLAGS.curriculum]
    tokenizer = _tokenizer(out, curriculum)
    model = _model(curriculum, tokenizer)
    optimizer = make_optimizer()
    state = TrainingState(
        params=model.trainable,
        opt_state=optimizer.init(model.trainable),
        step=FLAGS.first_batch,
    )
    state.restore(out / "state.npz")
    update = make_update(model.graphdef, optimizer)
    tokenizer_file = out / "tokenizer.json"
    with background_batches(tokenizer_file, FLAGS.curriculum, FLAGS.seed, state.step) as next_batch:
        train(
            state,
            update,
            next_batch,
            schedule_s=FLAGS.minutes * 60,
            first_step=FLAGS.first_batch,
            out=out,
        )
    hf.save(dataclasses.replace(model, trainable=state.params), out, dtype="float16")
    print(f"wrote the base to {out}")


def _tokenizer(out: pathlib.Path, curriculum: Curriculum) -> Any:
    """Return the tokenizer in `out`; if there is none, copy the one of `--init` or train one."""
    if FLAGS.init:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(pathlib.Path(FLAGS.init) / name, out)
    file = out / "tokenizer.json"
    if not file.exists():
        print("training the tokenizer", flush=True)
        texts = curriculum.tokenizer_texts(FLAGS.seed)
        trained = tokenizer_training.train(texts, curriculum.vocab_size, curriculum.fixed_phrases)
        tokenizer_training.save(trained, out)
    return tokenizers.Tokenizer.from_file(str(file))


def _model(curriculum: Curriculum, tokenizer: Any) -> Model:
    """Return the initial model, with the weights of `--init` or the layers of `--backbone`."""
    if FLAGS.init:
        return hf.load(FLAGS.init)
    bos_id = tokenizer.token_to_id(tokenizer_training.BOS)
    eos_id = tokenizer.token_to_id(tokenizer_training.END)
    model = init_model(model_config(curriculum, bos_id=bos_id, eos_id=eos_id), FLAGS.seed)
    if not FLAGS.backbone:
        return model
    backbone_tokenizer = tokenizers.Tokenizer.from_file(f"{FLAGS.backbone}/tokenizer.json")
    backbone = hf.load(FLAGS.backbone)
    return transplant(model, backbone, tokenizer, backbone_tokenizer, seed=FLAGS.seed)


if __name__ == "__main__":
    flags.DEFINE_enum("curriculum", "webshop", list(CURRICULA), "What the base is taught.")
    cli.define_path(
        "out", None, "Folder for the base and for the state of a stopped run.", local=True
    )
    flags.DEFINE_float(
        "minutes", 90.0, "Training time of the whole schedule, including what a stopped run did."
    )
    flags.DEFINE_integer("seed", 7, "Seed of the exercises and of the initial weights.")
    cli.define_path("init", None, "Base to continue from, with its tokenizer.", local=True)
    cli.define_path(
        "backbone", None, "Base whose layers to start from, with a new vocabulary.", local=True
    )
    flags.DEFINE_integer("first_batch", 0, "Number of the first batch, to continue a curriculum.")
    flags.mark_flag_as_required("out")
    flags.mark_flags_as_mutual_exclusive(["init", "backbone"])
    cli.run(main)
