"""The `tf.train.Example` message as bytes: a map from names to lists of ints, floats or bytes.

Wire format (proto3), from TensorFlow's example.proto and feature.proto:
  Example      { Features features = 1; }
  Features     { map<string, Feature> feature = 1; }  entry { string key = 1; Feature value = 2; }
  Feature      { oneof { BytesList = 1; FloatList = 2; Int64List = 3; } }
  BytesList    { repeated bytes value = 1; }
  FloatList    { repeated float value = 1 [packed]; }
  Int64List    { repeated int64 value = 1 [packed]; }

Written by hand because the message type comes with TensorFlow, and because equal features then give
equal bytes (protobuf leaves the order of map entries open). Knows no file and no field of ours.
"""

from collections.abc import Iterator, Mapping

import numpy as np

Feature = np.ndarray | list[bytes]  # int64[n], float32[n] or byte strings

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def serialize(features: Mapping[str, Feature]) -> bytes:
    """Encode features in the order of their names."""
    entries = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, _feature(features[name])))
        for name in sorted(features)
    )
    return _field(1, entries)


def parse(record: bytes) -> dict[str, Feature]:
    """Decode a message; the inverse of `serialize`, and of TensorFlow's own writers.

    Raises:
        ValueError: when the bytes are no such message.
    """
    features: dict[str, Feature] = {}
    for _, block in _fields(record, 1):
        for _, entry in _fields(block, 1):
            parts = dict(_fields(entry, 1, 2))
            features[parts.get(1, b"").decode()] = _parse_feature(parts.get(2, b""))
    return features


def _feature(values: Feature) -> bytes:
    if isinstance(values, list):
        return _field(1, b"".join(_field(1, value) for value in values))
    if values.dtype.kind == "f":
        return _field(2, _field(1, values.astype("<f4").tobytes()))
    return _field(3, _field(1, b"".join(map(_varint, values.tolist()))))


def _parse_feature(data: bytes) -> Feature:
    for kind, payload in _fields(data, 1, 2, 3):
        values = [value for _, value in _fields(payload, 1)]
        if kind == 1:
            return values
        if kind == 2:
            return np.frombuffer(b"".join(values), "<f4")
        return _varints(b"".join(values))
    return []


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(number << 3 | _LENGTH) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative int64 values are written as their two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varints(data: bytes) -> np.ndarray:
    """Decode back-to-back varints; in numpy, since this is nearly all of a shard's reading time."""
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if raw.size and (not ends.size or ends[-1] != raw.size - 1):
        raise ValueError("a varint is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1]) if ends.size else ends
    if ends.size and (ends - starts).max() > 9:
        raise ValueError("a varint is longer than 10 bytes")
    index_in_value = np.arange(raw.size) - np.repeat(starts, ends - starts + 1)
    septets = (raw & 0x7F).astype(np.uint64) << (7 * index_in_value).astype(np.uint64)
    return np.add.reduceat(septets, starts).view(np.int64) if ends.size else np.empty(0, np.int64)


def _fields(data: bytes, *wanted: int) -> Iterator[tuple[int, bytes]]:
    """Yield the payloads of the wanted fields; others are skipped, as protobuf asks."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        start = at
        if kind == _LENGTH:
            length, start = _read_varint(data, at)
            at = start + length
        elif kind == _VARINT:
            _, at = _read_varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"unknown wire type {kind}")
        if at > len(data):
            raise ValueError("a field is cut off")
        if (
            number in wanted
        ):  # unpacked ints and floats come one by one and join up to the packed form
            yield number, data[start:at]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a varint is cut off")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
