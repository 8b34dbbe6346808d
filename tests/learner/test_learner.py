"""What a run's model section asks for is what is tuned, stored and started from."""

import jax
import numpy as np
import pytest
from etils import epath
from jax.experimental.compilation_cache import compilation_cache

from eef_jax import config as config_lib
from eef_jax import export
from eef_jax.config.sections import SamplingSection
from eef_jax.engine.engine import Engine
from eef_jax.engine.programs import Programs
from eef_jax.engine.scheduler import Scheduler
from eef_jax.errors import ConfigError
from eef_jax.learner import sampling
from eef_jax.learner.placement import Placement
from eef_jax.learner.sampling import Sampler
from eef_jax.learner.tuning import tune as run_tune
from eef_jax.models.huggingface import peft, safetensors
from eef_jax.storage.workdir import CHECKPOINT
from eef_jax.train import checkpoint
from eef_jax.types import Example
from tests.test_export import folder  # noqa: F401 (a fixture)


def config(path, lora=(), changes=(), **model):
    made = config_lib.new(env="webshop", expert="webshop")
    made.mesh.data = 8
    made.train.update({"epochs": 1, "batch_size": 8, "seq_len": 16})
    made.model.update({"path": str(path), **model})
    made.model.lora.update({"rank": 2, "targets": ("q_proj", ".*up_proj"), **dict(lora)})
    return config_lib.override(made.to_dict(), changes)


def tune(settings, stage, placement=None):
    tokens, weights = np.arange(1, 9, dtype=np.int32), np.ones(8, np.float32)
    examples = [Example(id=str(n), tokens=tokens + n, weights=weights) for n in range(8)]
    stage.mkdir()
    run_tune(
        placement or Placement(settings),
        examples,
        epath.Path(stage),
        settings.train,
        seed=0,
        number=0,
        previous=None,
        config_hash="",
    )
    return checkpoint.read_metadata(stage / CHECKPOINT)


def test_a_checkpoint_says_how_its_base_was_read_and_exports(folder, tmp_path):  # noqa: F811
    note = tune(config(folder, {"rslora": True}, quantization="nf4"), tmp_path / "tune")
    assert (note.quantization, note.param_dtype) == ("nf4", "float32")
    assert note.lora.rslora and note.lora.targets == ("q_proj", ".*up_proj")
    adapter = export.export(tmp_path / "tune", tmp_path / "adapter", format="peft")
    # Tuning goes on from there; the run's own rank and targets give way, its dropout counts.
    settings = config(
        folder, {"rank": 7, "targets": ("all",), "dropout": 0.5}, adapter=str(adapter)
    )
    later = tune(settings, tmp_path / "later").lora
    assert (later.rank, later.rslora, later.dropout) == (2, True, 0.5)
    assert later.targets == ("q_proj", "up_proj")


def test_contradictory_model_options_are_refused(folder):  # noqa: F811
    with pytest.raises(
        ConfigError, match=r"is tuned on as an adapter, but model\.tuning is 'full'"
    ):
        config(folder, tuning="full", adapter="some/folder")
    with pytest.raises(ConfigError, match="stores weights that cannot be tuned"):
        config(folder, tuning="full", quantization="int8")


def test_rows_that_do_not_divide_over_the_devices_are_refused(folder, tmp_path):  # noqa: F811
    settings = config(folder, changes=[("train.batch_size", "7")])
    with pytest.raises(ConfigError, match=r"batch of 7 rows.*train\.batch_size to a multiple of 8"):
        tune(settings, tmp_path / "tune")


def test_stacked_layers_are_stored_and_exported_like_any_others(folder, tmp_path):  # noqa: F811
    sharded = [("train.remat", "block"), ("mesh.data", "2"), ("mesh.fsdp", "4")]
    plain, scanned = config(folder), config(folder, changes=sharded, scan_layers=True)
    found = []
    for name, settings in (("plain", plain), ("scanned", scanned)):
        tune(settings, tmp_path / name)
        out = export.export(tmp_path / name, tmp_path / f"{name}_out", format="peft")
        found.append(safetensors.open_file(out / peft.WEIGHTS)[0])
    assert set(found[0]) == set(found[1])
    for key, stored in found[0].items():
        whole = (slice(None), slice(None))
        np.testing.assert_allclose(found[1][key].read(whole), stored.read(whole), atol=1e-4)


def test_one_process_with_equal_meshes_shares_one_copy_of_the_base(folder):  # noqa: F811
    axes = "rollout_mesh.data", "rollout_mesh.tensor"
    equal = config(folder, changes=zip(axes, ("8", "1"), strict=True))
    different = config(folder, changes=zip(axes, ("4", "2"), strict=True))
    placement = Placement(equal)
    assert placement.played is placement.trained
    assert placement.second_copy_bytes() == 0
    placement = Placement(different)
    allocated = sum(
        leaf.addressable_shards[0].data.nbytes
        for leaf in jax.tree.leaves((placement.played.frozen, placement.played.trainable))
    )
    assert placement.second_copy_bytes() == allocated
    weight = placement.played.frozen["layers"][0]["q_proj"]["weight"]
    assert dict(weight.sharding.mesh.shape)["tensor"] == 2


def test_a_released_sampler_holds_no_kv_cache(folder, monkeypatch):  # noqa: F811
    made = []

    def engine(model, *, stop_ids, config):
        made.append(Programs(model, config))
        return Engine(model, stop_ids=stop_ids, config=config, scheduler=Scheduler(made[-1]))

    monkeypatch.setattr(sampling, "Engine", engine)
    sizes = [("engine.max_context", "64"), ("engine.max_num_seqs", "2")]
    settings = config(folder, changes=sizes)
    sampler = Sampler(Placement(settings), settings.engine)
    sampler.release()  # nothing to release before the first policy
    with sampler.policy(None, SamplingSection(max_new_tokens=1), seed=0):
        pass
    (programs,) = made
    assert programs.holds_cache
    sampler.release()
    assert not programs.holds_cache


def test_a_preset_of_a_shape_alone_asks_for_its_folder():
    settings = config_lib.load("configs/webshop.py:llama3_8b")
    with pytest.raises(ConfigError, match=r"--config.model.path=FOLDER"):
        _ = Placement(settings).path


@pytest.mark.parametrize("backend", ["tpu", "cpu"])
def test_compiled_programs_are_kept_but_on_cpu(
    folder,  # noqa: F811
    tmp_path,
    monkeypatch,
    backend,
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    kept = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (None, 0.0), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    try:
        cache = epath.Path(tmp_path / "compiled")
        placement = Placement(config(folder), compile_cache=cache)
        tune(config(folder), tmp_path / "tune", placement)
        assert any(tmp_path.glob("compiled/*")) == (backend == "tpu")
        other = Placement(config(folder), compile_cache=epath.Path(tmp_path / "other"))
        _ = other.mesh  # JAX has a folder by now
        expected = str(tmp_path / "compiled") if backend == "tpu" else None
        assert getattr(jax.config, names[0]) == expected
    finally:
        for name, value in zip(names, kept, strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()
