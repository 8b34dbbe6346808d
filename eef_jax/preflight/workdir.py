"""Whether the work folder can be written, and is this run's."""

import os

from etils import epath

from eef_jax import config as config_lib
from eef_jax.errors import ConfigError
from eef_jax.lineage import Lineage
from eef_jax.preflight.start import Start
from eef_jax.storage import files
from eef_jax.storage.workdir import Workdir, check_workdir

_CONTENT = "written by eef_jax to find out whether it can; it may be deleted\n"


def check_config(start: Start) -> None:
    """Check that the folder is new or holds a run of this config.

    Raises:
        ConfigError: it holds something else.
    """
    assert start.root is not None, "nothing is written without a work folder"
    check_workdir(
        start.root,
        config_lib.plain(start.config),
        may_differ=config_lib.may_differ(start.config),
        overwrite=start.overwrite,
    )


def check_lineage(start: Start) -> None:
    """Check that finished stages were made from what is there now.

    Raises:
        ConfigError: as `check_config`.
        DataError: some were not, or a manifest is damaged.
    """
    check_config(start)  # of another run's folder that says enough
    assert start.root is not None, "nothing was finished without a work folder"
    work = Workdir(root=start.root, config={})
    Lineage(work, start.config, env=start.env, outside=True).check(start.schedule.done)


def check_writable(start: Start) -> None:
    """Write a small file into the work folder, or where it will be made, read it and delete it.

    No folder is made: one that this process removed again could be another's of the same run.

    Raises:
        ConfigError: it cannot be written.
    """
    assert start.root is not None, "nothing is written without a work folder"
    root = start.root
    probe = _existing(root) / f"probe-{os.getpid()}{files.TEMP_SUFFIX}"
    try:
        files.write_text(probe, _CONTENT)
        probe.read_text()
        probe.unlink()
    except Exception as error:  # object stores raise errors of their own kinds
        raise ConfigError(
            f"the work folder {root} cannot be written ({type(error).__name__}: {error}): name "
            "another --workdir, or mend its permissions"
        ) from error


def _existing(root: epath.Path) -> epath.Path:
    """The folder or the nearest one above it that is there; object stores need none."""
    if not files.is_local(root):
        return root
    return next(folder for folder in (root, *root.parents) if folder.exists())
