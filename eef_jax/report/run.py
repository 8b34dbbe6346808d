"""Read a run from its work folder: finished stages, their counts and their files.

Every reader returns an empty value for an unfinished stage, so that an incomplete run can be
reported.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from eef_jax import config as config_lib
from eef_jax import scores as scores_lib
from eef_jax.config import Config
from eef_jax.lineage import Lineage
from eef_jax.methods.base import Method
from eef_jax.scores import Score
from eef_jax.storage.files import read_json, rerun
from eef_jax.storage.selections import read_selections
from eef_jax.storage.stages import stage_names
from eef_jax.storage.trajectories import index_trajectories
from eef_jax.storage.workdir import Workdir
from eef_jax.types import Attempt

CLONE = "sft_positive (clone)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A work folder to read from.

    Attributes:
        work: the folder.
        method: name of the method.
        rounds: rounds that the method plays after the clone.
        manifests: manifests of the finished stages, by the stage's name.
        missing: names of the unfinished stages, in their order.
    """

    work: Workdir
    config: Config
    method: str
    rounds: int
    manifests: Mapping[str, Mapping[str, Any]]
    missing: tuple[str, ...]

    def counts(self, stage: str) -> Mapping[str, Any]:
        """The counts of a stage; empty if it is unfinished."""
        counts: Mapping[str, Any] = self.manifests.get(stage, {}).get("counts", {})
        return counts

    def facts(self, number: int) -> Mapping[str, Any]:
        """The method's own facts about a round (see `methods._solutions.summarize`)."""
        facts: Mapping[str, Any] = self.counts(f"round_{number}/select").get("facts", {})
        return facts

    def scores(self, stage: str) -> dict[str, Score]:
        """Scores of `expert` or `round_<i>/evaluate`: `all`, and one for each tag."""
        path = self.work.stage(stage).folder / "scores.json"
        if stage not in self.manifests or not path.exists():  # an imported expert has none
            return {}
        values = read_json(path, remedy=rerun(path.parent))
        return {name: scores_lib.score_from_json(x) for name, x in values.items()}

    def selections(self, number: int) -> list[dict[str, Any]]:
        """The verdicts of a round: trajectory, task, role, state and steps with their reasons.

        Raises:
            DataError: a line is damaged.
        """
        stage = self.work.stage(f"round_{number}/select")
        if stage.name not in self.manifests:
            return []
        return read_selections(stage.folder)

    def attempts(self, stage: str) -> tuple[Attempt, ...]:
        """The attempts of a stage; their steps are read by `load`."""
        if stage not in self.manifests:
            return ()
        return index_trajectories(self.work.stage(stage).folder)

    def label(self, number: int) -> str:
        """A round's name in tables."""
        if number:
            return f"{self.method}, round {number}"
        return CLONE if self.rounds else self.method

    def last(self) -> int | None:
        """The last round that was evaluated."""
        done = [i for i in range(self.rounds + 1) if f"round_{i}/evaluate" in self.manifests]
        return max(done, default=None)

    def total(self, stage: str, *names: str) -> dict[str, int]:
        """Sums of a kind of stage's counts over all rounds."""
        sums: Counter[str] = Counter()
        for number in range(self.rounds + 1):
            counts = self.counts(f"round_{number}/{stage}")
            sums.update({name: counts.get(name, 0) for name in names})
        return dict(sums)


def read(work: Workdir) -> Run:
    """Read a run, finished or not.

    Raises:
        DataError: a manifest or a file is not as it was written, or a stage was made from something
            else than is there now.
        ConfigError: the run's method is not known here.
    """
    config = config_lib.read(work.config)
    method: Method = config_lib.make("method", config.method)
    manifests, missing = {}, []
    for name in stage_names(method.rounds):
        stage = work.stage(name)
        if stage.done():
            stage.verify()
            manifests[name] = stage.manifest()
        else:
            missing.append(name)
    Lineage(work, config).check(list(manifests))
    return Run(
        work=work,
        config=config,
        method=method.name,
        rounds=method.rounds,
        manifests=manifests,
        missing=tuple(missing),
    )
