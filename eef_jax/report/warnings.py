"""What a reader of the results should know first: data lost to length, too few optimizer steps."""

from eef_jax.report import markdown
from eef_jax.report.run import Run
from eef_jax.types import Outcome

FEW_STEPS = 30  # a schedule with warm-up hardly moves the weights in fewer


def warnings(run: Run) -> list[str]:
    """One sentence for each finding; [] if there is none."""
    found = []
    for stage, manifest in run.manifests.items():
        counts = manifest.get("counts", {})
        kind = stage.rpartition("/")[2]
        if kind == "select":
            found += _too_long(stage, counts, run.config.train.seq_len)
        elif kind == "tune":
            found += _few_steps(stage, counts)
        else:
            found += _full_contexts(stage, counts, run.config.engine.max_context)
    return found


def _too_long(stage: str, counts: dict[str, int], seq_len: int) -> list[str]:
    lost, all_of_them = counts.get("too_long", 0), counts.get("selections", 0)
    if not lost:
        return []
    return [
        f"{stage}: {lost:,} of {all_of_them:,} selected trajectories "
        f"({markdown.share(lost / all_of_them)}) are longer than a row of {seq_len:,} tokens and "
        "were not trained on: raise train.seq_len"
    ]


def _few_steps(stage: str, counts: dict[str, int]) -> list[str]:
    steps = counts.get("steps", FEW_STEPS)
    if steps >= FEW_STEPS:
        return []
    return [
        f"{stage}: {steps} optimizer steps, fewer than {FEW_STEPS}: lower train.batch_size or "
        "raise train.epochs"
    ]


def _full_contexts(stage: str, counts: dict[str, dict[str, int]], max_context: int) -> list[str]:
    outcomes = counts.get("outcomes", {})
    lost = outcomes.get(Outcome.MAX_CONTEXT, 0)
    if not lost:
        return []
    played = sum(outcomes.values())
    return [
        f"{stage}: {lost:,} of {played:,} episodes ({markdown.share(lost / played)}) ended where "
        f"the context of {max_context:,} tokens was full: raise engine.max_context"
    ]
