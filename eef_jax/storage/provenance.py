"""Provenance of an artefact: commit, config hash, seed and library versions."""

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eef_jax import __version__

_LIBRARIES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers", "transformers"),
)


def json_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config after a round trip through JSON (tuples become lists)."""
    values: dict[str, Any] = json.loads(json.dumps(config))
    return values


def config_hash(config: Mapping[str, Any]) -> str:
    """Hash of a config's values, independent of their order: 16 hexadecimal digits."""
    canonical = json.dumps(json_values(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def collect_provenance(
    config: Mapping[str, Any], seed: int, *, base: str | None = None
) -> dict[str, Any]:
    """Collect commit (None outside a checkout), config hash, seed and library versions.

    Args:
        config: what is hashed.
        seed: of the run.
        base: name of the base model, one on the Hugging Face hub with its commit; None where there
            is none.
    """
    versions = {"eef_jax": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "commit": _commit(),
        "config_hash": config_hash(config),
        "seed": seed,
        **({} if base is None else {"base": base}),
        "versions": versions,
    }


def _commit() -> str | None:
    """The checkout's commit, with `+` where files differ from it."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):  # an installed copy inside another project
            return None
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.SubprocessError):
        return None
