"""Whether there are tasks, and whether their first observations can be read."""

from eef_jax.errors import ConfigError, EnvError
from eef_jax.preflight.start import Start
from eef_jax.rollout import failures


def check_splits(start: Start) -> None:
    """Check that every split that is used has tasks.

    Raises:
        ConfigError: one has none.
    """
    empty = {split: why for split, why in start.splits.items() if not start.env.tasks(split)}
    if not empty:
        return
    filled = [split for split in ("train", "dev", "test") if start.env.tasks(split)]
    lines = "; ".join(f"the split {split!r} has no task, but {why}" for split, why in empty.items())
    raise ConfigError(
        f"{start.env.name}: {lines}. Splits with tasks: {', '.join(filled) or 'none'}: choose "
        "config.evaluate.split among them, or mend the fields of config.env that make the splits"
    )


def check_openings(start: Start) -> None:
    """Start a few tasks of each split.

    Raises:
        EnvError: some cannot be started; with the reasons.
    """
    failed = start.openings.failed
    if failed:
        lines = "\n".join(f"  {line}" for line in failures.reasons(failed))
        raise EnvError(
            f"{len(failed)} of {len(start.sampled)} tasks of {start.env.name} that were tried "
            f"cannot be started:\n{lines}\ncheck the environment's data and installation"
        )
