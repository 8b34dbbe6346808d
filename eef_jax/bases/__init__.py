"""The pretrained nano bases that ship, each a Hugging Face folder, and how a config names a base.

A nano base plays the part that a pretrained LLM plays in the paper: it can read before it is taught
to act. `pretrain/` holds the code that made them.
"""

import importlib.resources
import os

from eef_jax.errors import ConfigError, did_you_mean
from eef_jax.storage import files, hub

PREFIX = "nano:"
_FOLDER = importlib.resources.files("eef_jax") / "bases"
WEBSHOP = str(_FOLDER / "webshop")  # the default base


def find(path: str, *, weights: bool = True) -> str:
    """Folder of a base model; one on the Hugging Face hub is downloaded into this machine's cache.

    Args:
        path: a Hugging Face folder; `org/name[@revision]` on the hub, if there is no such folder;
            `nano:NAME` for a base that ships with the package; "" for the one that ships for
            WebShop.
        weights: whether they are needed from the hub, too, and not config and tokenizer alone.

    Raises:
        ConfigError: no base of that name ships.
        DataError: it can neither be downloaded nor is in the cache.
    """
    if not path.startswith(PREFIX):
        repository = on_hub(path)
        return (
            os.fspath(hub.download(repository, weights=weights)) if repository else path or WEBSHOP
        )
    name = path.removeprefix(PREFIX)
    bases = sorted(base.name for base in _FOLDER.iterdir() if (base / "config.json").is_file())
    if name not in bases:
        raise ConfigError(
            f"config.model.path is {path!r}, but no such base ships; "
            f"{did_you_mean(name, bases)}. Make one with python -m pretrain.main --curriculum=NAME "
            "--out=FOLDER, and name its folder"
        )
    return str(_FOLDER / name)


def on_hub(path: str) -> hub.Repository | None:
    """The repository that a base is read from; None for a folder and for a base that ships."""
    repository = hub.parse(path)
    return None if repository and files.to_path(path).is_dir() else repository


def pinned(path: str, earlier: str = "") -> str:
    """The name of a base as a run records it: one on the hub with the hash of its commit.

    Args:
        path: as `find`.
        earlier: what an earlier start of the run recorded; "" at its first. Without a revision in
            `path` the run stays with that commit, whatever the repository's main branch has become.

    Raises:
        DataError: the commit is in neither the hub nor the cache.
    """
    repository, before = on_hub(path), hub.parse(earlier)
    if repository is None:
        return path
    if before and before.is_pinned and before.id == repository.id and not repository.revision:
        return earlier
    return str(hub.pinned(repository))
