"""Turns WebShop's official files into one stored dataset, once.

    python -m eef_jax.envs.webshop.import_data --products=items_shuffle.json \
        --attributes=items_ins_v2.json --human_instructions=items_human_ins.json \
        --title_nouns=title_nouns.json --seed=0 --out=webshop_full

The config's `env.data_dir` then points at the folder. This is the command line alone; what it does
is in `importer`.
"""

import dataclasses

from absl import flags

from eef_jax import cli
from eef_jax.envs.webshop import importer
from eef_jax.errors import ConfigError
from eef_jax.untrusted import show

FLAGS = flags.FLAGS


def main() -> None:
    """Import the files that the flags name, or verify what was imported."""
    if not FLAGS.out:
        raise ConfigError("--out is not given; name a folder for the dataset")
    if FLAGS.verify:
        importer.verify_dataset(FLAGS.out)
        show(f"{FLAGS.out} is whole")
        return
    for name in ("products", "attributes"):
        if not FLAGS[name].value:
            raise ConfigError(f"--{name} is not given; docs/webshop.md says where to get the files")
    names = [field.name for field in dataclasses.fields(importer.Sources)]
    sources = importer.Sources(**{name: getattr(FLAGS, name) for name in names})
    manifest = importer.import_dataset(sources, FLAGS.out)
    for name, count in manifest["counts"].items():
        show(f"{count:>12,} {name}")
    show(f"dataset {manifest['dataset_id']}; use it with --config.env.data_dir={FLAGS.out}")


def run() -> None:
    """Run the command."""
    cli.define_path("products", "", "Path of items_shuffle*.json.")
    cli.define_path("attributes", "", "Path of items_ins_v2*.json.")
    cli.define_path(
        "human_instructions", "", "Path of items_human_ins*.json: goals are the human ones."
    )
    cli.define_path("title_nouns", "", "Path of title_nouns.json, see eef_jax.envs.webshop.nouns.")
    cli.define_path("out", "", "Folder to make.", local=True)
    flags.DEFINE_integer("seed", 0, "Decides hidden prices and price bounds.")
    flags.DEFINE_integer("max_products", 0, "Only this many first rows of the products; 0: all.")
    flags.DEFINE_bool("verify", False, "Only check the dataset in --out against its manifest.")
    cli.run(main)


if __name__ == "__main__":
    run()
