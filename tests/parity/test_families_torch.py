"""Every family against transformers in torch, tiny and random: nothing here names one.

Logits with padding on either side and packed, every sublayer on the very inputs that torch gives
its own, exported folders, and an account of every field of transformers' config class.
"""

import functools

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from eef_jax.config.sections import LoraConfig  # noqa: E402
from eef_jax.errors import EefError  # noqa: E402
from eef_jax.models.config import ModelOptions  # noqa: E402
from eef_jax.models.families import registry  # noqa: E402
from eef_jax.models.huggingface import folder as hf  # noqa: E402
from eef_jax.models.model import Model  # noqa: E402
from tests.parity import reference  # noqa: E402

CLOSE = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)

# What may change in a config without changing what a model computes when it is tuned or sampled.
NEUTRAL = {
    "_sliding_window_pattern", "bos_token_id", "dtype", "eos_token_id", "initializer_range",
    "model_type", "pad_token_id", "pretraining_tp", "transformers_version", "use_cache",
}  # fmt: skip
# Further such fields of models that also take images.
NEUTRAL_OUTSIDE_TEXT = {
    "boi_token_index", "eoi_token_index", "image_token_index", "mm_tokens_per_image",
    "vision_config", "tie_word_embeddings",
}  # fmt: skip

pytestmark = pytest.mark.parametrize("model_type", sorted(registry.families()))


@functools.cache
def torch_model(model_type: str):
    return reference.make(model_type)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Ours, read from the folder that transformers writes; one for each family."""

    @functools.cache
    def load(model_type: str) -> Model:
        folder = tmp_path_factory.mktemp(model_type)
        torch_model(model_type).save_pretrained(folder)
        return hf.load(folder)

    return load


def logits(model: Model, *rows: np.ndarray) -> np.ndarray:
    decoder = model.decoder
    return np.asarray(jax.jit(lambda *rows: decoder.logits(decoder(*rows)))(*rows))


def test_logits_of_padded_rows_equal_torch(model_type, loaded):
    rows = reference.batch()
    expected = reference.logits(torch_model(model_type), *rows)
    got = logits(loaded(model_type), *rows)
    assert np.abs(expected).max() > 1.0
    CLOSE(got[rows[2] == 1], expected[rows[2] == 1])


def test_logits_of_packed_rows_equal_torch_on_each_alone(model_type, loaded):
    tokens, positions, segments = reference.batch()
    expected = reference.logits(torch_model(model_type), tokens, positions, segments)
    real = segments == 1
    owners = np.broadcast_to(np.arange(1, len(reference.PADS) + 1)[:, None], real.shape)
    packed = [np.pad(x[real], (0, 5))[None] for x in (tokens, positions, owners)]
    got = logits(loaded(model_type), *packed)
    CLOSE(got[0, :-5], expected[real])


def test_every_sublayer_equals_torch(model_type, loaded):
    tokens, positions, segments = reference.batch()
    seen = sublayers(torch_model(model_type), tokens, positions, segments)
    decoder = loaded(model_type).decoder
    parts = ours(decoder, positions, segments)
    assert set(parts) == set(seen)

    def run(inputs):
        return {name: part(inputs[name]) for name, part in parts.items()}

    got = jax.jit(run)({name: given for name, (given, _) in seen.items()})
    for name, (_, expected) in seen.items():
        if expected.ndim == 4 and expected.shape[2] == reference.LENGTH:  # heads before tokens
            got[name], expected = got[name].swapaxes(1, 2), expected.swapaxes(1, 2)
        CLOSE(got[name][segments == 1], expected[segments == 1], err_msg=name)


def sublayers(model, *rows) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Input and output of every module of torch's text model that computes on tokens."""
    seen = {}

    def hook(name, _module, args, kwargs, output):
        given = args[0] if args else kwargs.get("hidden_states")
        output = output[0] if isinstance(output, tuple) else output
        seen[name] = tuple(x.detach().numpy() for x in (given, output))

    outside = ("act_fn", "rotary_emb")
    handles = [
        module.register_forward_hook(functools.partial(hook, name), with_kwargs=True)
        for name, module in model.get_decoder().named_modules()
        if name not in ("", "layers") and not name.endswith(outside)
    ]
    reference.logits(model, *rows)
    for handle in handles:
        handle.remove()
    return seen


def ours(decoder, positions, segments):
    """The same modules of ours by torch's names, each a function of its input."""
    turns = decoder.rotary_embeddings(positions)
    found = {"embed_tokens": decoder.embed_tokens}
    for name, path in registry.family(decoder.config.model_type).TENSORS.items():
        parts = path.split(".")
        if len(parts) == 1:  # the embedding and the head are not modules here
            continue
        for i in range(decoder.config.n_layers) if "{i}" in name else (0,):
            owner = decoder.layers[i] if parts[0] == "layers" else decoder
            theirs = name.format(i=i).removeprefix("model.").rpartition(".")[0]
            found[theirs] = getattr(owner, parts[-2])
    for i, layer in enumerate(decoder.layers):
        rest = {"rotary": turns[i], "segment_ids": segments}
        found[f"layers.{i}"] = functools.partial(layer, **rest, dropout_keys=None)
        found[f"layers.{i}.self_attn"] = functools.partial(layer.attend, **rest)
        found[f"layers.{i}.mlp"] = layer.feed_forward
    return found


def test_transformers_loads_what_is_saved(model_type, loaded, tmp_path):
    theirs = torch_model(model_type)
    theirs.save_pretrained(tmp_path / "theirs")
    model = hf.load(tmp_path / "theirs", ModelOptions(lora=LoraConfig(rank=2)))
    hf.save(model, tmp_path / "ours")
    again, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    rows = reference.batch()
    real = rows[2] == 1
    CLOSE(reference.logits(again.eval(), *rows)[real], reference.logits(theirs, *rows)[real])


def test_every_field_of_transformers_config_is_accounted_for(model_type):
    """Whatever changes there changes the decoder's shape, is refused, or is known not to matter."""
    raw = reference.config(model_type).to_dict()
    base_fields = set(transformers.PreTrainedConfig().to_dict())
    fields = raw.get("text_config", raw)
    own = transformers.AutoConfig.for_model(fields["model_type"]).to_dict()

    def read(fields):
        nested = {**raw, "text_config": fields} if "text_config" in raw else fields
        return registry.family(model_type).config_from_hf(nested)

    def matters(fields, name, value) -> bool:
        try:
            return read({**fields, name: value}) != read(fields)
        except EefError:
            return True

    # Fields that layer_types makes superfluous must show without it.
    terse = {name: value for name, value in fields.items() if name != "layer_types"}
    ignored = [
        f"{name} = {value!r}"
        for name in sorted(set(own) - base_fields - NEUTRAL | {"tie_word_embeddings"})
        for value in changed(name, fields[name])
        if not matters(fields, name, value) and not matters(terse, name, value)
    ]
    assert not ignored
    if "text_config" in raw:
        assert set(raw) - base_fields - NEUTRAL - NEUTRAL_OUTSIDE_TEXT == {"text_config"}


def changed(name, value):
    """Other values of a config's field."""
    if name == "rope_parameters":
        if "full_attention" in value:
            for kind, rope in value.items():
                yield {**value, kind: {**rope, "rope_theta": 77.0}}
                yield {**value, kind: {**rope, "rope_type": "linear", "factor": 3.0}}
        else:
            yield {**value, "rope_theta": 77.0}
            yield {**value, "rope_type": "linear", "factor": 3.0}
            yield {**value, "rope_type": "yarn", "factor": 3.0}
    elif name == "layer_types":
        yield value[::-1] if value != value[::-1] else [*value[:-1], "chunked_attention"]
    elif isinstance(value, bool) or (value is None and not name.endswith("softcapping")):
        yield not value
    elif isinstance(value, str):
        yield "tanh"
    else:
        yield 2.0 if value is None else value + 2
