"""Prints where this Python is, its version and those of packages, as JSON; null for what is missing.
Also whether torch computes on a GPU.

    python probe.py PACKAGE ...

Reads what is installed without importing it, which for torch takes many seconds; where there are
drivers of a GPU, only torch can tell whether it gets along with them.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import sys

# Of NVIDIA, of AMD, and of either under Windows.
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def version_of(package: str) -> "str | None":
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def sees_gpu() -> bool:
    if not any(map(os.path.exists, DRIVERS)) and shutil.which("nvidia-smi") is None:
        return False
    try:
        import torch

        return torch.cuda.is_available()
    except Exception:  # noqa: BLE001  (what is wrong with it is found when it is used)
        return False


print(
    json.dumps(
        {
            "executable": sys.executable,
            "python": platform.python_version(),
            "gpu": sees_gpu(),
            "packages": {package: version_of(package) for package in sys.argv[1:]},
        }
    )
)
