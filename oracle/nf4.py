"""Saves a checkpoint as bitsandbytes quantises it for QLoRA: NF4, double-quantised.

    .oracle/bin/python oracle/nf4.py MODEL OUT_DIR

This is the base a QLoRA adapter is trained on, as transformers loads it with `load_in_4bit` and
saves it again. Deterministic. An existing OUT_DIR is left as it is.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

# Must be set before the imports. Nothing here may reach out to the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"


def main() -> None:
    parser = argparse.ArgumentParser(description="Quantises a checkpoint to NF4.")
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    if (out / "config.json").exists():
        print(f"nf4: {out} is there already")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        quantize(arguments.model, partial)
        partial.chmod(0o755)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"nf4: wrote {out}")


def quantize(source: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.bfloat16, quantization_config=quantization, device_map={"": "cpu"}
    )
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)


if __name__ == "__main__":
    main()
