"""What a run was made with, for its readers: versions, processor, threads, devices. No host or user names."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("preceptor", "torch", "monai", "lightning", "transformers", "diffusers", "numpy", "scipy", "safetensors")


def environment() -> dict[str, Any]:
    """Plain values for `environment.json`."""
    import os

    import torch

    found: dict[str, Any] = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    found["packages"] = {name: _version(name) for name in PACKAGES}
    found["processor"] = processor()
    found["cores"] = os.cpu_count()
    found["threads"] = torch.get_num_threads()
    found["devices"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def processor() -> str:
    """The processor's name as the system tells it."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
