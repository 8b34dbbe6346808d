"""Description of the machine that a benchmark ran on."""

import os
import platform
from pathlib import Path


def describe() -> str:
    """Describe the processor, its widest vector instructions and the number of cores."""
    info = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    if info.exists():
        for line in info.read_text().partition("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields.get('model')})"
    flags = fields.get("flags", "").split()
    vectors = [found for found in ("avx512f", "avx2") if found in flags][:1]
    return ", ".join([name, *vectors, f"{os.cpu_count()} cores"])
