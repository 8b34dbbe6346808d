"""The pretrained nano bases that ship, each a Hugging Face folder, and how a config names a base.

A nano base plays the part that a pretrained LLM plays in the paper: it can read before it is taught
to act. `pretrain/` holds the code that made them.
"""

import importlib.resources

from eef_jax.errors import ConfigError, did_you_mean

PREFIX = "nano:"
_FOLDER = importlib.resources.files("eef_jax") / "bases"
WEBSHOP = str(_FOLDER / "webshop")  # the default base


def find(path: str) -> str:
    """Folder of a base model.

    Args:
        path: a Hugging Face folder; `nano:NAME` for a base that ships with the package; "" for the
            one that ships for WebShop.

    Raises:
        ConfigError: no base of that name ships.
    """
    if not path.startswith(PREFIX):
        return path or WEBSHOP
    name = path.removeprefix(PREFIX)
    bases = sorted(base.name for base in _FOLDER.iterdir() if (base / "config.json").is_file())
    if name not in bases:
        raise ConfigError(
            f"config.model.path is {path!r}, but no such base ships; "
            f"{did_you_mean(name, bases)}. Make one with python -m pretrain.main --curriculum=NAME "
            "--out=FOLDER, and name its folder"
        )
    return str(_FOLDER / name)
