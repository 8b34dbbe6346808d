"""Importing the package, and every module of its host half, loads no accelerator library."""

import importlib.util
import json
import pkgutil
import subprocess
import sys

import eef_jax

# Whatever is not named here belongs to the host half.
DEVICE = (
    "analysis",
    "compile",
    "data.batches",
    "engine",
    "evaluate",
    "export",
    "kernels",
    "learner",
    "main",
    "models",
    "pipeline",
    "policies.local",
    "preflight.model",
    "sharding",
    "train",
)
# Modules that say so where the package of an extra is not installed.
EXTRA = {"eef_jax.envs.webshop.gym": "gymnasium", "eef_jax.envs._jvm.gateway": "py4j"}
# Imports module after module and tells what each was the first to load.
PROGRAM = """
import importlib, json, sys
seen, loaded = set(), {}
for module in sys.argv[1:]:
    importlib.import_module(module)
    now = {name.partition(".")[0] for name in sys.modules}
    loaded[module], seen = sorted(now - seen), now
print(json.dumps(loaded))
"""
HEAVY = {"flax", "huggingface_hub", "jax", "jaxlib", "tensorflow", "torch", "transformers"}


def host_modules():
    names = [module.name for module in pkgutil.walk_packages(eef_jax.__path__, "eef_jax.")]
    device = tuple(f"eef_jax.{name}" for name in DEVICE)
    lacking = {name for name, extra in EXTRA.items() if importlib.util.find_spec(extra) is None}
    host = [n for n in names if not any(n == d or n.startswith(f"{d}.") for d in device)]
    return [name for name in host if name not in lacking]


def test_the_host_half_loads_no_accelerator_library():
    modules = ["eef_jax", *host_modules()]
    assert {"eef_jax.types", "eef_jax.storage.workdir", "eef_jax.methods.eef"} <= set(modules)
    command = [sys.executable, "-c", PROGRAM, *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    culprits = {
        module: sorted(HEAVY & set(loaded))
        for module, loaded in json.loads(done.stdout).items()
        if HEAVY & set(loaded)
    }
    assert not culprits
