"""The start of a run: environment and method are made, checked, and the work folder is opened.

`pipeline.run` begins with it; `check` is all that `--check` does.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Collection, Iterator
from typing import Any

from etils import epath

from eef_jax import bases, preflight
from eef_jax import config as config_lib
from eef_jax.cluster.hosts import SINGLE_PROCESS, Hosts
from eef_jax.config import Config, numerics
from eef_jax.errors import ConfigError
from eef_jax.methods.base import Method
from eef_jax.preflight import forecast
from eef_jax.storage import files
from eef_jax.storage import stages as stages_lib
from eef_jax.storage.provenance import collect_provenance, config_hash, json_values
from eef_jax.storage.stages import Schedule
from eef_jax.storage.workdir import CONFIG, Stage, Workdir, open_workdir


def check(
    config: Config,
    workdir: str,
    *,
    stages: Collection[str] = stages_lib.KINDS,
    overwrite: bool = False,
    new_numerics: bool = False,
    source: str = "",
    devices: int = 0,
    processes: int = 1,
) -> str:
    """Make the checks of `pipeline.run` alone; returns what the run would do, in lines of text.

    Args:
        config: the run's config.
        workdir: folder of the run.
        stages: kinds of stages that would run, out of `storage.stages.KINDS`.
        overwrite: whether what another config left in `workdir` would be deleted.
        new_numerics: whether other numerics than the recorded ones would be taken.
        source: where the config comes from, for the text.
        devices: number of devices of the planned run; 0: those that are here.
        processes: number of processes of the planned run.

    Raises:
        EefError: a check failed; with all of them where several did.
    """
    config = pinned(config, earlier_base(workdir, overwrite=overwrite))
    start = plan(config, workdir, stages=stages, overwrite=overwrite)
    start = dataclasses.replace(start, devices=devices, processes=processes)
    try:
        start = with_recorded(start, new_numerics=new_numerics)
        preflight.check(start)
        parts = [forecast.header(start, source=source), forecast.forecast(start)]
        return "\n\n".join(filter(None, parts))
    finally:
        start.env.close()


def plan(
    config: Config,
    workdir: str,
    *,
    stages: Collection[str],
    overwrite: bool = False,
    is_lead: bool = True,
) -> preflight.Start:
    """Make environment and method, and find the stages to run; its environment is to be closed."""
    root = files.to_path(workdir)
    method: Method = config_lib.make("method", config.method)
    return preflight.Start(
        config=config,
        schedule=schedule(root, method, stages, overwrite=overwrite),
        env=config_lib.make("env", config.env),
        method=method,
        root=root,
        overwrite=overwrite,
        is_lead=is_lead,
    )


def with_recorded(
    start: preflight.Start, *, new_numerics: bool, hosts: Hosts = SINGLE_PROCESS
) -> preflight.Start:
    """The start with the numerics that its work folder has recorded, where the config's are open.

    Args:
        start: a start with the numerics that were asked for.
        new_numerics: take other ones than the recorded.
        hosts: the processes of the run, which all take what the lead reads.

    Raises:
        ConfigError: others were asked for, without `new_numerics`.
        DataError: the record is damaged, or missing in a folder with finished stages.
    """
    record = numerics.NOTHING
    if hosts.is_lead and not start.overwrite:
        record = _read_record(start, new_numerics=new_numerics)
    said = json.loads(hosts.broadcast(json.dumps(dataclasses.asdict(record))))
    record = numerics.Record(values=said["values"], earlier=tuple(said["earlier"]))
    assert start.root is not None, "a run has a work folder"
    numerics.check(start.config, record.values, start.root)
    return dataclasses.replace(
        start, config=numerics.fill(start.config, record.values), numerics=record
    )


def _read_record(start: preflight.Start, *, new_numerics: bool) -> numerics.Record:
    assert start.root is not None, "a run has a work folder"
    record = numerics.read(start.root)
    if new_numerics:
        return (record or numerics.NOTHING).renewed(start.schedule.first_unfinished)
    if record is None and start.schedule.done:
        raise numerics.missing(start.root)
    return record or numerics.NOTHING


def pinned(config: Config, earlier: str = "", *, hosts: Hosts = SINGLE_PROCESS) -> Config:
    """The config with the commit of a base on the Hugging Face hub in the base's name.

    Args:
        config: a run's config.
        earlier: the base's name that an earlier start of the run recorded, "" without one.
        hosts: the processes of the run, which all take the commit that the lead has found.

    Raises:
        DataError: the commit cannot be found out.
    """
    given = config.model.path
    found = [given, bases.pinned(given, earlier) if hosts.is_lead else ""]
    leads, path = json.loads(hosts.broadcast(json.dumps(found)))
    if leads != given:  # started by another command, which is refused later
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, path=path))


def provenance_of(config: Config) -> dict[str, Any]:
    """The provenance of what a run makes."""
    results = config_lib.of_kind(config, "results")
    return collect_provenance(results, config.seed, base=config.model.path)


def earlier_base(workdir: str, *, overwrite: bool) -> str:
    """The base's name in the config that a work folder holds; "" without one.

    Args:
        workdir: the folder.
        overwrite: whether what is in it will be deleted.
    """
    file = files.to_path(workdir) / CONFIG
    if overwrite or not file.exists():
        return ""
    try:
        return str(json.loads(file.read_bytes())["model"]["path"])
    except (ValueError, KeyError, TypeError):  # the config of something else, refused later
        return ""


def schedule(
    root: epath.Path, method: Method, kinds: Collection[str], *, overwrite: bool = False
) -> Schedule:
    """The stages of a work folder that are finished, and those to run.

    Args:
        root: the work folder.
        method: the method, whose rounds decide which stages there are.
        kinds: kinds of stages that were asked for.
        overwrite: whether what is finished will be deleted.
    """
    names = stages_lib.stage_names(method.rounds)
    done = [name for name in names if Stage(name=name, folder=root / name).done()]
    return stages_lib.schedule(method.rounds, kinds, () if overwrite else done)


def agree(hosts: Hosts, schedule: Schedule) -> Schedule:
    """The lead's schedule, on all processes."""
    return Schedule(**json.loads(hosts.broadcast(json.dumps(dataclasses.asdict(schedule)))))


@contextlib.contextmanager
def open_run(
    hosts: Hosts, start: preflight.Start, asked: Config, stages: Collection[str]
) -> Iterator[Workdir]:
    """The work folder: locked by the lead, used by all processes.

    Args:
        hosts: the processes of the run.
        start: of this process.
        asked: its config, with open numerics as they were asked for.
        stages: kinds of stages to run.

    Raises:
        ConfigError: it is in use or holds another run, or the processes were started differently.
    """
    assert start.root is not None, "a run has a work folder"
    workdir, hashed = os.fspath(start.root), config_hash(numerics.chosen(start.config))
    mine = json.dumps([hash_of(asked), hashed, sorted(stages), start.overwrite])
    if (leads := hosts.broadcast(mine)) != mine:
        raise ConfigError(
            f"process {hosts.process_index} was started with {mine} (hashes of config and "
            f"numerics, stages, overwrite), process 0 with {leads}: start all processes with the "
            "same command"
        )
    if hosts.is_lead:
        with open_workdir(
            workdir,
            config_lib.plain(asked),
            may_differ=config_lib.may_differ(asked),
            overwrite=start.overwrite,
        ) as work:
            hosts.broadcast(work.holder())
            yield work
            hosts.barrier()
        return
    work = Workdir(root=epath.Path(workdir), config=json_values(config_lib.plain(asked)))
    holder = hosts.broadcast("")  # waits until the lead holds it
    if work.holder() != holder:
        raise ConfigError(
            f"{workdir} is not the same folder for process {hosts.process_index} as for process "
            "0: take a --workdir in storage that all machines share, or gs://"
        )
    yield work
    hosts.barrier()


def hash_of(config: Config) -> str:
    """Hash of the fields that decide a run's results."""
    return config_hash(config_lib.of_kind(config, "results"))
