"""What the stages of a run are made from, and whether finished ones still are.

A stage's manifest keeps a hash of each of its inputs: the sections of the config that it reads, the
environment's data and prompt, files that the user brought, and the stages before it. An earlier
stage that is made again with equal content changes none of them.
"""

import fnmatch
import functools
import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from eef_jax import bases
from eef_jax import config as config_lib
from eef_jax.config import Config
from eef_jax.envs.base import Env
from eef_jax.errors import DataError
from eef_jax.storage import files, manifest
from eef_jax.storage import stages as stages_lib
from eef_jax.storage.provenance import config_hash
from eef_jax.storage.workdir import CONFIG, Workdir, content_of

_WORDS = {
    "dataset_id": "the environment's data",
    "prompt": "the environment's prompt",
    "base": "the base model's files",
    "adapter": "the adapter's files",
    "trajectories": "the expert's file",
    "conversations": "the file of chats",
}
# Of a base's folder: config, tokenizer and template. A checkpoint keeps a hash of the weights.
_BASE_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
_TUNE = re.compile(r"round_\d+/tune")


_log = logging.getLogger(__name__)


class Lineage:
    """The inputs of a run's stages.

    Args:
        work: the run's folder.
        config: its config; None: only what stages are made from each other is known.
        env: its environment; None: neither are data and prompt known.
        outside: whether files outside of the work folder are looked at: of the base, of an adapter
            to start from, of the expert's trajectories, of chats.
    """

    def __init__(
        self,
        work: Workdir,
        config: Config | None = None,
        *,
        env: Env | None = None,
        outside: bool = False,
    ):
        self._work = work
        self._config = config
        self._env = env
        self._outside = outside
        self._hashed: dict[str, str] = {}

    def inputs(self, stage: str) -> dict[str, str]:
        """A hash of each input of a stage whose needs are finished, by the input's name."""
        needs = stages_lib.needs(stage)
        return {**self._given(stage), **{need: self._work.stage(need).content() for need in needs}}

    def stale(self, finished: Sequence[str]) -> dict[str, list[str]]:
        """Finished stages that were made from something else, with the names of these inputs.

        Args:
            finished: names of stages in their order. Inputs that other stages would make, and those
                that a manifest does not have, are not compared.

        Raises:
            DataError: a manifest is damaged.
        """
        manifests = {name: self._work.stage(name).manifest() for name in finished}
        found: dict[str, list[str]] = {}
        for name, said in manifests.items():
            needs = [need for need in stages_lib.needs(name) if need in manifests]
            now = {**self._given(name), **{need: content_of(manifests[need]) for need in needs}}
            recorded = said.get("made_from", {})
            other = [x for x in now if x in found or recorded.get(x, now[x]) != now[x]]
            if other:
                found[name] = other
        return found

    def check(self, finished: Sequence[str]) -> None:
        """Check that finished stages were made from what is there now.

        Args:
            finished: as for `stale`.

        Raises:
            DataError: some were not; all are named, with what differs.
        """
        if found := self.stale(finished):
            raise DataError(
                f"finished stages in {self._work.root} were made from something else than is there "
                f"now; they, and what differs:\n{described(found)}\nBring back what they were made "
                "from, or move the folders of these stages away, so that they run again"
            )

    def _given(self, stage: str) -> dict[str, str]:
        """Hashes of what no stage makes, as far as it is known."""
        if self._config is None:
            return {}
        reads, found = stages_lib.reads(stage), sections(self._config, stage)
        if "env" in reads:
            found |= self._environment
        if self._outside:
            found |= self._brought(self._config, reads)
        return found

    @functools.cached_property
    def _environment(self) -> dict[str, str]:
        env = self._env
        if env is None:
            return {}
        first = next(iter(env.tasks("train")), None)
        said = [] if first is None else [[m.role, m.content] for m in env.prompt(first)]
        return {"dataset_id": env.dataset_id, "prompt": config_hash({"messages": said})}

    def _brought(self, config: Config, reads: Sequence[str]) -> dict[str, str]:
        """Hashes of files that the user brought."""
        found: dict[str, str] = {}
        if "expert" in reads:
            found |= self._files("trajectories", config.expert.trajectories.split(","))
        if "train.conversations" in reads:
            found |= self._files("conversations", config.train.conversations.split(","))
        if "model" in reads:
            found |= self._files("adapter", [config.model.adapter])
        # The name of a base on the hub has the hash of its commit.
        if {"model", "model.path"} & set(reads) and not bases.on_hub(config.model.path):
            found |= self._files("base", [bases.find(config.model.path)], only=_BASE_FILES)
        return found

    def _files(
        self, label: str, paths: Sequence[str], *, only: Sequence[str] = ("*",)
    ) -> dict[str, str]:
        """A hash of files and folders under a label; nothing where one is not there any more."""
        found = [files.to_path(path.strip()) for path in paths if path]
        if not found or not all(path.exists() for path in found):
            return {}
        if label not in self._hashed:
            hashes = {str(n): _hashes(path, only) for n, path in enumerate(found)}
            self._hashed[label] = config_hash(hashes)
        return {label: self._hashed[label]}


def sections(config: Config, stage: str) -> dict[str, str]:
    """A hash of each section of a config that a stage reads, by the input's name."""
    results = config_lib.of_kind(config, "results")
    return {f"config.{name}": _section_hash(results, name) for name in stages_lib.reads(stage)}


def described(stale: Mapping[str, Sequence[str]]) -> str:
    """Stale stages with the inputs that differ, a line each."""
    rows = (
        f"  {stage}: {', '.join(_WORDS.get(one, one) for one in inputs)}"
        for stage, inputs in stale.items()
    )
    return "\n".join(rows)


def warn_of_stale(checkpoint: epath.Path, *, env: Env | None = None) -> None:
    """Say in a warning that the stages behind a checkpoint are no longer what it was made from.

    Args:
        checkpoint: as for `of_checkpoint`.
        env: as for `of_checkpoint`.
    """
    if stale := of_checkpoint(checkpoint, env=env):
        _log.warning(
            "%s: it, or a stage before it, was made from something else than is there now; the "
            "stages, and what differs:\n%s",
            checkpoint,
            described(stale),
        )


def of_checkpoint(checkpoint: epath.Path, *, env: Env | None = None) -> dict[str, list[str]]:
    """The stages behind a checkpoint that are no longer what its stage was made from.

    Args:
        checkpoint: its own folder; of one that is not in its stage's folder nothing is known.
        env: the environment that it will play.
    """
    checkpoint = files.absolute(checkpoint)
    for root in files.parents(checkpoint):
        if (root / CONFIG).exists():
            stage = os.fspath(checkpoint.parent.relative_to(root))
            if not _TUNE.fullmatch(stage):
                return {}
            work = Workdir(root=root, config={})
            names = [name for name in _ancestry(stage) if work.stage(name).done()]
            return Lineage(work, env=env).stale(names)
    return {}


def _ancestry(stage: str) -> list[str]:
    """A stage with all that it is made from, in order."""
    found = {stage}
    for name in reversed(stages_lib.stage_names(stages_lib.round_of(stage))):
        if name in found:
            found |= set(stages_lib.needs(name))
    return [name for name in stages_lib.stage_names(stages_lib.round_of(stage)) if name in found]


def _section_hash(results: Mapping[str, Any], name: str) -> str:
    return config_hash(
        {path: x for path, x in results.items() if path == name or path.startswith(f"{name}.")}
    )


def _hashes(path: epath.Path, only: Sequence[str]) -> dict[str, str]:
    """SHA-256 by name, of a file or of the files in a folder."""
    inside = manifest.walk(path) if path.is_dir() else [path]
    chosen = [p for p in inside if any(fnmatch.fnmatch(p.name, pattern) for pattern in only)]
    return {os.fspath(p.relative_to(path)): manifest.digest(p)[1] for p in chosen}
