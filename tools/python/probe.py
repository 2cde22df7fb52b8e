"""Prints where this Python is, its version and those of packages, as JSON; null for what is missing.

    python probe.py PACKAGE ...

Reads what is installed without importing it, which for torch takes many seconds.
"""

import importlib.metadata
import json
import platform
import sys


def version_of(package: str) -> "str | None":
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


print(
    json.dumps(
        {
            "executable": sys.executable,
            "python": platform.python_version(),
            "packages": {package: version_of(package) for package in sys.argv[1:]},
        }
    )
)
