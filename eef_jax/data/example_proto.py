"""The `tf.train.Example` message without TensorFlow: a map from names to ints, floats or bytes.

The generated message classes come with TensorFlow, so equal ones (example.proto, feature.proto) are
built here at import, with the same field numbers. Equal features give equal bytes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

Feature = np.ndarray | list[bytes]  # int64[n], float32[n] or byte strings

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "eef_jax"
_LISTS = {
    "bytes_list": ("BytesList", _Field.TYPE_BYTES),
    "float_list": ("FloatList", _Field.TYPE_FLOAT),
    "int64_list": ("Int64List", _Field.TYPE_INT64),
}


def serialize(features: Mapping[str, Feature]) -> bytes:
    """Encode features; equal features give equal bytes.

    Args:
        features: name -> int64[n], float32[n] or byte strings.
    """
    example = _Example()
    entries = example.features.feature
    for name, values in features.items():
        if isinstance(values, list):
            kind, plain = "bytes_list", values
        else:
            kind = "float_list" if values.dtype.kind == "f" else "int64_list"
            plain = values.tolist()
        values_list = getattr(entries[name], kind)
        values_list.SetInParent()  # an empty list has a type, too
        values_list.value.extend(plain)
    # Deterministic serialisation sorts the map by key; otherwise protobuf leaves the order open.
    encoded: bytes = example.SerializeToString(deterministic=True)
    return encoded


def parse(record: bytes) -> dict[str, Feature]:
    """Decode a message, also one that TensorFlow wrote.

    Returns:
        name -> int64[n], float32[n] or byte strings; an empty list if a feature has no type.

    Raises:
        ValueError: the bytes are not such a message.
    """
    try:
        example = _Example.FromString(record)
    except message.DecodeError as error:
        raise ValueError(str(error)) from error
    return {name: _values(feature) for name, feature in example.features.feature.items()}


def _values(feature: Any) -> Feature:
    kind = feature.WhichOneof("kind")
    if kind is None:
        return []
    values = getattr(feature, kind).value
    if kind == "bytes_list":
        return list(values)
    return np.array(values, np.float32 if kind == "float_list" else np.int64)


def _message_class() -> Any:
    """Build the class of `Example`.

    Example  { Features features = 1; }
    Features { map<string, Feature> feature = 1; }
    Feature  { oneof kind { BytesList bytes_list = 1; FloatList float_list = 2;
                            Int64List int64_list = 3; } }
    BytesList, FloatList, Int64List  { repeated <type> value = 1; }
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="eef_jax/example.proto", package=_PACKAGE, syntax="proto3"
    )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (kind, (name, scalar)) in enumerate(_LISTS.items(), start=1):
        values = file.message_type.add(name=name)
        values.field.add(name="value", number=1, label=_Field.LABEL_REPEATED, type=scalar)
        _add_message_field(feature, kind, number, name, oneof_index=0)
    features = file.message_type.add(name="Features")
    # On the wire a map is a repeated message of key and value.
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
    _add_message_field(entry, "value", 2, "Feature")
    _add_message_field(features, "feature", 1, "Features.FeatureEntry", label=_Field.LABEL_REPEATED)
    _add_message_field(file.message_type.add(name="Example"), "features", 1, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


def _add_message_field(
    parent: Any,
    name: str,
    number: int,
    kind: str,
    *,
    label: int = _Field.LABEL_OPTIONAL,
    **rest: Any,
) -> None:
    type_name = f".{_PACKAGE}.{kind}"
    parent.field.add(
        name=name, number=number, label=label, type=_Field.TYPE_MESSAGE, type_name=type_name, **rest
    )


_Example = _message_class()
