"""Checks before the first episode: what can be known at the start of a run is checked there.

`start` holds what the checks look at; `workdir`, `episodes`, `losses`, `expert` and `model` are the
checks, each a small function that raises one error; `forecast` says what a run will do. Only those
checks are made that the stages to run need, and all failures are reported together. Weights are not
read: headers and config files are.
"""

from collections.abc import Callable, Iterator

from eef_jax.errors import ConfigError, EefError
from eef_jax.preflight import episodes, expert, losses, workdir
from eef_jax.preflight.start import Start as Start

Check = Callable[[Start], object]


def check(start: Start) -> None:
    """Make all checks.

    Raises:
        EefError: the one that failed; a `ConfigError` with the messages of all of them if there are
            several.
    """
    failures: dict[str, EefError] = {}
    for one in checks(start):
        try:
            one(start)
        except EefError as error:
            # Checks that need the same file fail with the same message.
            failures.setdefault(str(error), error)
    found = list(failures.values())
    if len(found) == 1:
        raise found[0]
    if found:
        lines = [f"{number}. {error}" for number, error in enumerate(found, start=1)]
        raise ConfigError(
            f"{len(found)} checks failed, and nothing was started:\n" + "\n".join(lines)
        )


def checks(start: Start) -> Iterator[Check]:
    """The checks that the stages to run need, cheap ones first."""
    kinds = start.schedule.kinds()
    if start.root is not None:
        yield workdir.check_config
        if start.schedule.done and start.is_lead:
            yield workdir.check_lineage
    if not kinds:
        return
    if start.root is not None:
        yield workdir.check_writable
    if kinds != {"tune"}:
        yield episodes.check_splits
        yield episodes.check_openings
    if kinds & {"explore", "tune"}:
        yield losses.check_losses
    if "select" in kinds:
        yield losses.check_conversations
    if "expert" in kinds and start.is_lead:
        yield expert.check_file if start.config.expert.trajectories else expert.check_plays
    if kinds == {"expert"}:
        return
    from eef_jax.preflight import model  # not at the top: it loads JAX

    yield model.find_folder
    try:
        model.find_folder(start)
    except EefError:
        return  # no more can be said of the model
    yield model.check_files
    yield model.check_vocabulary
    if kinds & {"explore", "evaluate"}:
        yield model.check_context
        yield model.check_rollout_mesh
    if "tune" in kinds:
        yield model.check_batch
        yield model.check_disk
    if kinds & {"explore", "evaluate", "tune"}:
        yield model.check_memory
    if kinds != {"tune"}:
        yield model.check_template
        yield model.check_lengths
