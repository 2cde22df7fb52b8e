"""Makes PyPI's CUDA build of torch importable on a machine that has no CUDA libraries.

The Linux wheels of torch are linked against about a dozen NVIDIA libraries, which their own
wheels bring as several gigabytes. None of them is called on a CPU, but the loader wants each
file, each symbol version and each symbol to exist before `import torch` succeeds. This module
reads what torch's libraries ask for and writes libraries of a few kilobytes that satisfy it.

The small genuine `nvidia-cuda-runtime` wheel is installed beside torch, so that "how many
devices are there?" is answered by NVIDIA's own code; only what is still missing is stubbed.
"""

import re
from collections import defaultdict
from pathlib import Path

from elf_stub import RETURN_CODE, StubSymbol, build_stub
from elf_symbols import LibrarySymbols, read_library

# Libraries of the system, or of torch's lazily loaded parts (libcuda is the GPU's driver).
NOT_STUBBED = re.compile(
    r"^(ld-linux.*|libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|libgomp"
    r"|libgfortran|libquadmath|libz|libcuda)(\.|-)"
)
# Owner of symbols that carry no version and hence do not name their library.
UNVERSIONED_OWNERS = {
    "libcufile": r"cuFile",
    "libcupti": r"cupti",
    "libcusparseLt": r"cusparseLt",
    "libnccl": r"p?nccl",
    "libnvshmem_host": r"nvshmem",
}
RETURNS_TEXT = re.compile(r"(String|Name)$|get_?error_?string", re.IGNORECASE)


def write_stubs(site_packages: Path) -> list[Path]:
    """Writes the missing libraries into torch/lib and returns them.

    Returns an empty list where torch's wheel needs no CUDA library (macOS, CPU builds).
    Raises ValueError on a machine for which no stub code is known.
    """
    folder = site_packages / "torch" / "lib"
    libraries = [read_library(path) for path in sorted(folder.glob("lib*.so*"))]
    present = {path.name for path in folder.glob("*.so*")}
    present |= {path.name for path in (site_packages / "nvidia").glob("**/*.so*")}
    missing = _missing_libraries(libraries, present)
    if not missing:
        return []
    machine = libraries[0].machine
    if machine not in RETURN_CODE:
        raise ValueError(f"no CUDA stubs for ELF machine {machine}: use x86_64 or aarch64")
    symbols = _symbols_by_library(libraries, missing)
    written = []
    for soname in missing:
        path = folder / soname
        path.write_bytes(build_stub(machine, soname, symbols[soname].values()))
        written.append(path)
    return written


def _missing_libraries(libraries: list[LibrarySymbols], present: set[str]) -> list[str]:
    needed = {name for library in libraries for name in library.needed}
    return sorted(name for name in needed - present if not NOT_STUBBED.match(name))


def _symbols_by_library(
    libraries: list[LibrarySymbols], missing: list[str]
) -> dict[str, dict[str, StubSymbol]]:
    defined = set().union(*(library.defined for library in libraries))
    symbols: dict[str, dict[str, StubSymbol]] = defaultdict(dict)
    for library in libraries:
        for wanted in library.undefined:
            owner = wanted.library or _unversioned_owner(wanted.name, missing)
            if owner not in missing or (wanted.version is None and wanted.name in defined):
                continue
            symbols[owner][wanted.name] = StubSymbol(
                name=wanted.name,
                version=wanted.version,
                is_data=wanted.is_data,
                returns_text=bool(RETURNS_TEXT.search(wanted.name)),
            )
    return symbols


def _unversioned_owner(name: str, missing: list[str]) -> str | None:
    for stem, pattern in UNVERSIONED_OWNERS.items():
        if re.match(pattern, name):
            return next((soname for soname in missing if soname.startswith(stem + ".")), None)
    return None
