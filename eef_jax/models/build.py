"""From a shape and options to a model: random weights, shapes only, or values from any source.

Every model is made in the same three steps: a decoder of shapes (nothing is allocated), its
parameters filled one by one on the devices, and the split into frozen and trainable parameters.
`huggingface.folder.load` follows them, too, with values from files.
"""

from collections.abc import Callable, Mapping

import jax
from flax import nnx
from jax.sharding import Mesh

from eef_jax import kernels
from eef_jax.config.sections import LoraConfig, matches
from eef_jax.errors import ConfigError
from eef_jax.models import stacking
from eef_jax.models.config import DEFAULT_OPTIONS, ModelConfig, ModelOptions
from eef_jax.models.decoder import Decoder
from eef_jax.models.families import hf_names
from eef_jax.models.initial import initial
from eef_jax.models.model import Model
from eef_jax.models.placing import Leaf, Source, SourceOf, fill, parameter_leaves, unstacked_shapes
from eef_jax.models.quantize import KINDS

Shapes = Mapping[hf_names.ParamPath, jax.ShapeDtypeStruct]


def init(
    config: ModelConfig,
    options: ModelOptions = DEFAULT_OPTIONS,
    *,
    mesh: Mesh | None = None,
    seed: int = 0,
) -> Model:
    """Make a model with random weights.

    Args:
        config: shape of the decoder.
        options: adapter, types and layout.
        mesh: devices that the parameters are sharded over; None for the default device.
        seed: decides the weights; they depend on neither the mesh nor the layout.

    Raises:
        ConfigError: an adapter that matches no projection, layers that cannot be stacked, or an
            unknown attention.
    """

    def sources(shapes: Shapes) -> SourceOf:
        def source_of(path: hf_names.ParamPath, leaf: Leaf) -> Source:
            return initial(path, shapes[path].shape, seed).__getitem__

        return source_of

    return from_sources(config, options, sources, mesh=mesh)


def from_sources(
    config: ModelConfig,
    options: ModelOptions,
    sources: Callable[[Shapes], SourceOf],
    *,
    mesh: Mesh | None,
) -> Model:
    """Make a model whose values come from somewhere else.

    Args:
        config: shape of the decoder.
        options: adapter, types and layout.
        sources: maps the shapes of all parameters (each layer under its own name, whatever the
            layout) to a function that gives the source of each one.
        mesh: devices that the parameters are sharded over; None for the default device.

    Raises:
        ConfigError: an adapter that matches no projection, layers that cannot be stacked, or an
            unknown attention.
    """
    decoder = _abstract_decoder(config, options, mesh)
    leaves = parameter_leaves(decoder)
    # Files and seeds know each layer by its own name, so stacks are filled layer by layer.
    variables = fill(leaves, sources(unstacked_shapes(leaves)), mesh)
    return _model(_with_variables(decoder, variables), config, options.lora)


def abstract_model(
    config: ModelConfig, options: ModelOptions = DEFAULT_OPTIONS, *, mesh: Mesh | None = None
) -> Model:
    """Make a model of shapes (`jax.ShapeDtypeStruct`) in place of values: nothing is allocated.

    Args:
        config: shape of the decoder.
        options: adapter, types and layout.
        mesh: devices that `attention="auto"` is resolved for; None for the default device. They
            need not exist (ahead-of-time compilation for a TPU slice).

    Raises:
        ConfigError: an adapter that matches no projection, layers that cannot be stacked, or an
            unknown attention.
    """
    decoder = _abstract_decoder(config, options, mesh)
    shapes = dict(nnx.to_flat_state(nnx.state(decoder, nnx.Param)))
    return _model(_with_variables(decoder, shapes), config, options.lora)


def unrolled(model: Model) -> Model:
    """The model with separate layers, as sampling and export want it.

    Args:
        model: with layers in any layout; one without stacks is returned as it is. The layers are
            slices of the stacks, made next to them on their devices.
    """
    decoder = model.decoder
    if not decoder.scanned:
        return model
    stacking.unstack_layers(decoder)
    return _model(decoder, model.config, model.lora)


def _abstract_decoder(config: ModelConfig, options: ModelOptions, mesh: Mesh | None) -> Decoder:
    attention = kernels.resolve_attention(options.attention, mesh, options.dtype, config)

    def build() -> Decoder:
        decoder = Decoder(
            config,
            dtype=options.dtype,
            param_dtype=options.param_dtype,
            attention=attention,
            remat=options.remat,
        )
        if options.lora is not None:
            _add_adapters(decoder, options.lora)
        if options.quantization:
            _quantize_projections(decoder, options.quantization)
        if options.scan_layers:
            stacking.stack_layers(decoder)
        return decoder

    # Traced, not run: adding adapters, quantizing and stacking layers allocates nothing, and the
    # zeros that the modules are made with never exist.
    return nnx.eval_shape(build)


def _add_adapters(decoder: Decoder, lora: LoraConfig) -> None:
    """Add an adapter to every projection that `lora` targets.

    Raises:
        ConfigError: a target matches no projection.
    """
    names = hf_names.projection_names(decoder.config)
    known = tuple(names.values())
    unmatched = [t for t in lora.targets if not any(matches(t, name) for name in known)]
    if unmatched:
        raise ConfigError(
            f"LoRA targets {', '.join(unmatched)} match no projection; the model's are named like "
            f"{known[0]}: name one (q_proj), the end of one (layers.3.mlp."
            "up_proj) or a regular expression for the whole name"
        )
    for path, name in names.items():
        if lora.adapts(name):
            hf_names.submodule(decoder, path).adapt(lora)


def _quantize_projections(decoder: Decoder, kind: str) -> None:
    """Replace the weight of every projection by a quantized one (zeros until it is filled).

    Raises:
        ConfigError: the kind cannot hold a projection's shape.
    """
    for layer in decoder.layers:
        for linear in layer.projections():
            linear.weight = KINDS[kind](linear.shape, linear.axes)


def _with_variables(
    decoder: Decoder, variables: Mapping[hf_names.ParamPath, nnx.Variable]
) -> Decoder:
    return nnx.merge(nnx.graphdef(decoder), nnx.from_flat_state(variables))


def _model(decoder: Decoder, config: ModelConfig, lora: LoraConfig | None) -> Model:
    """Split a decoder: an adapter alone is trainable, without one every parameter is."""
    # An adapter's LoRAParam is a Param, too, so with an adapter the filter must name the subclass.
    kind = nnx.Param if lora is None else nnx.LoRAParam
    graphdef, *states = nnx.split(decoder, kind, ...)
    trainable, frozen = states
    return Model(config=config, lora=lora, graphdef=graphdef, frozen=frozen, trainable=trainable)
