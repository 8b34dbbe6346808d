"""The memory of loading a model, measured in a process of its own."""

import jax
import pytest

from benchmarks.models import import_memory
from eef_jax.models.huggingface import folder as hf
from tests.models.toys import toy

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def test_it_counts_the_parameters_and_a_peak(tmp_path, capfd):
    model = toy()
    hf.save(model, tmp_path)
    size, peak, seconds = import_memory.measure(
        str(tmp_path), param_dtype="float32", quantization=""
    )
    assert size == sum(leaf.nbytes for leaf in jax.tree.leaves(model.trainable))
    assert peak > 0 and seconds > 0


def test_a_folder_that_cannot_be_loaded_ends_it(tmp_path, capfd):
    with pytest.raises(SystemExit, match="failed, see above"):
        import_memory.measure(str(tmp_path / "none"), param_dtype="float32", quantization="")
