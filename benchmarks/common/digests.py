"""Digests of what a run made: `python -m benchmarks.common.digests WORKDIR [--expect=FILE]`.

Prints one JSON object of SHA-256 digests: of the TFRecord payloads, of the trajectories without
their provenance, and of the checkpoints' arrays. A change that preserves behaviour leaves all of
them equal: print them before, and compare with `--expect` after (exit code 1 if any differ).
Equal digests are expected on one machine and one set of package versions only: the last bits of
float32 sums depend on the processor.
"""

import argparse
import hashlib
import json
import pathlib
import struct
import sys
from collections.abc import Iterator

import jax
import numpy as np
from orbax.checkpoint.experimental import v1 as ocp

_HEADER, _FOOTER = 12, 4  # bytes around a TFRecord's payload: length and checksum, checksum


def digests(workdir: pathlib.Path) -> dict[str, str]:
    """Digest of each kind of artefact, over all stages of the run in `workdir`.

    Raises:
        FileNotFoundError: the folder holds no artefact of some kind.
    """
    kinds = {
        "tfrecords": _tfrecords(workdir),
        "trajectories": _trajectories(workdir),
        "checkpoints": _checkpoints(workdir),
    }
    return {kind: _digest(workdir, kind, parts) for kind, parts in kinds.items()}


def _digest(workdir: pathlib.Path, kind: str, parts: Iterator[bytes]) -> str:
    digest, count = hashlib.sha256(), 0
    for part in parts:
        digest.update(struct.pack("<Q", len(part)) + part)
        count += 1
    if not count:
        raise FileNotFoundError(f"{workdir} holds no {kind}: expected a finished run's work folder")
    return digest.hexdigest()


def _tfrecords(workdir: pathlib.Path) -> Iterator[bytes]:
    for path in sorted(workdir.glob("**/*.tfrecord-*")):
        data = path.read_bytes()
        start = 0
        while start < len(data):
            (length,) = struct.unpack_from("<Q", data, start)
            yield data[start + _HEADER : start + _HEADER + length]
            start += _HEADER + length + _FOOTER


def _trajectories(workdir: pathlib.Path) -> Iterator[bytes]:
    for path in sorted(workdir.glob("**/trajectories*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            record = json.loads(line)
            del record["provenance"]
            yield json.dumps(record, sort_keys=True).encode()


def _checkpoints(workdir: pathlib.Path) -> Iterator[bytes]:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # whatever devices have stored it
    for folder in sorted(workdir.glob("**/checkpoint")):
        stored = ocp.checkpointables_metadata(folder.resolve()).metadata["trainable"]
        wanted = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=here)
            for name, array in stored.items()
        }
        arrays = ocp.load_checkpointables(folder.resolve(), {"trainable": wanted})
        for name, array in sorted(arrays["trainable"].items()):
            values = np.asarray(array)
            yield f"{name} {values.dtype} {values.shape}".encode()
            yield np.ascontiguousarray(values).tobytes()


def main() -> None:
    """Print the digests of a work folder, or compare them with those of a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--expect", type=pathlib.Path, help="JSON that this command printed before")
    flags = parser.parse_args()
    found = digests(flags.workdir)
    print(json.dumps(found, indent=2))
    if flags.expect is None:
        return
    expected = json.loads(flags.expect.read_text("utf-8"))
    if differing := [kind for kind in expected if expected[kind] != found.get(kind)]:
        sys.exit(f"not as in {flags.expect}: {', '.join(differing)}")
    print("equal", file=sys.stderr)


if __name__ == "__main__":
    main()
