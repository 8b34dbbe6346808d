"""Peak memory of importing models: `python -m benchmarks.models.import_memory [--model=FOLDER]`.

For each folder (without any: a generated Llama of about 500 MB in files of 100 MB) a fresh process
imports jax, then loads the model on the CPU, while this one samples its anonymous memory (RssAnon:
pages of mapped files can be dropped by the system and do not count). The table shows the peak above
the level after `import jax`, all other imports included, and the bound of 1.15 times the bytes of
the parameters.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

from absl import flags

from benchmarks.common import tables
from eef_jax import cli

BOUND = 1.15  # times the bytes of the parameters
PERIOD = 0.0005  # seconds between two samples of the memory

_PROBE = """
import sys, jax
print("ready", flush=True), sys.stdin.readline()
from eef_jax.config.sections import LoraConfig
from eef_jax.models.config import ModelOptions
from eef_jax.models.huggingface import folder as hf
path, param_dtype, quantization = sys.argv[1:]
lora = LoraConfig(rank=1) if quantization else None
options = ModelOptions(lora=lora, param_dtype=param_dtype, quantization=quantization)
model = hf.load(path, options)
print(sum(leaf.nbytes for leaf in jax.tree.leaves((model.frozen, model.trainable))), flush=True)
sys.stdin.readline()
"""


def measure(folder: str, *, param_dtype: str, quantization: str) -> tuple[int, int, float]:
    """Load a folder in a fresh process.

    Args:
        folder: Hugging Face folder.
        param_dtype: type that parameters are stored in.
        quantization: `int8`, `nf4` or empty for none.

    Returns:
        The parameters' bytes, the peak of anonymous memory above the level after `import jax` in
        bytes, and seconds.
    """
    command = [sys.executable, "-c", _PROBE, folder, param_dtype, quantization]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as probe:
        assert probe.stdin is not None and probe.stdout is not None
        probe.stdout.readline()
        baseline, peak, done = _anonymous(probe.pid), [0], threading.Event()

        def sample() -> None:
            while not done.wait(PERIOD):
                peak[0] = max(peak[0], _anonymous(probe.pid))

        sampler = threading.Thread(target=sample)
        sampler.start()
        began = time.monotonic()
        probe.stdin.write("\n")
        answer = probe.stdout.readline()
        seconds = time.monotonic() - began
        done.set()
        sampler.join()
    if not answer:
        raise SystemExit(f"loading {folder} failed, see above")
    return int(answer), peak[0] - baseline, seconds


def generate(folder: str) -> None:
    """Write a random Llama of about 500 MB (float32) in files of at most 100 MB."""
    # Not at the top: for folders that exist this process needs no jax.
    from eef_jax.models import build
    from eef_jax.models.config import ModelConfig
    from eef_jax.models.huggingface import folder as hf

    config = ModelConfig(
        vocab_size=32_000,
        d_model=768,
        n_layers=12,
        n_heads=12,
        n_kv_heads=4,
        head_dim=64,
        d_ff=2048,
        tie_embeddings=False,
    )
    hf.save(build.init(config), folder, max_shard=10**8)


def _anonymous(pid: int) -> int:
    """Anonymous memory of a process in bytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def _main() -> None:
    given = flags.FLAGS
    header = ("folder", "parameters", "quantization", "MB", "peak MB", "share", "bound", "s")
    print("\n".join(tables.head(header, texts=3)), flush=True)
    with tempfile.TemporaryDirectory() as made:
        if not given.model:
            generate(made)
        for folder in given.model or [made]:
            for param_dtype, quantization in (
                ("float32", ""),
                ("bfloat16", ""),
                ("bfloat16", "int8"),
                ("bfloat16", "nf4"),
            ):
                size, peak, seconds = measure(
                    folder, param_dtype=param_dtype, quantization=quantization
                )
                cells = [
                    pathlib.Path(folder).name if given.model else "generated",
                    param_dtype,
                    quantization or None,
                    round(size / 1e6),
                    round(peak / 1e6),
                    f"{peak / size:.2f}",
                    None if quantization else f"{BOUND}",
                    seconds,
                ]
                print(tables.row(cells), flush=True)


def run() -> None:
    """Run the command."""
    flags.DEFINE_multi_string("model", [], "A Hugging Face folder; may be given several times.")
    cli.run(_main)


if __name__ == "__main__":
    run()
