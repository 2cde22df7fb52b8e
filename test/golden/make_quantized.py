"""Writes bases that bitsandbytes quantised, as goldens for the merge onto their dequantised weights.

    .oracle/bin/python test/golden/make_quantized.py [CASE ...]

For each case, quantized/<case>/ holds
- base/ as transformers saves it (in `shapes` as bitsandbytes packs single tensors), adapter/,
- dequantized.safetensors: what bitsandbytes makes of each quantised weight on a CPU, which is
  float32 for LLM.int8,
- merged.safetensors: the weights that the adapter changes as PEFT merges them into a model that has
  these weights, rounded to the base's dtype.
"""

import argparse
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import bitsandbytes.functional as bitsandbytes
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from golden_models import (
    ADAPTER_FILE,
    WEIGHT_DEVIATION,
    WEIGHTS_FILE,
    is_trained_in_full,
    start_folder,
    tidy,
)

FOLDER = Path(__file__).resolve().parent / "quantized"
# 72 columns: blocks of 64 begin inside of rows.
HIDDEN, INTERMEDIATE, VOCABULARY = 64, 72, 32
TARGETS = ["q_proj", "down_proj"]
BASE_NAME = "weldline/golden-quantized"
PREFIX = "base_model.model."


@dataclass(frozen=True)
class Case:
    name: str
    dtype: torch.dtype
    options: dict
    # Beside what all adapters here have.
    lora: dict = field(default_factory=dict)


def four_bits(kind: str, double: bool = False, storage: str = "uint8") -> dict:
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": double,
        "bnb_4bit_quant_storage": storage,
    }


CASES = (
    Case("nf4-bf16", torch.bfloat16, four_bits("nf4")),
    Case("nf4_double-bf16", torch.bfloat16, four_bits("nf4", True)),
    Case("nf4_double-fp16", torch.float16, four_bits("nf4", True)),
    Case("nf4_storage-bf16", torch.bfloat16, four_bits("nf4", storage="bfloat16")),
    Case("fp4-fp32", torch.float32, four_bits("fp4")),
    Case("fp4_double-bf16", torch.bfloat16, four_bits("fp4", True)),
    Case("int8-bf16", torch.bfloat16, {"load_in_8bit": True}),
    Case("int8-fp16", torch.float16, {"load_in_8bit": True}),
    Case("nf4_dora-bf16", torch.bfloat16, four_bits("nf4", True), {"use_dora": True}),
    Case(
        "nf4_trained-bf16",
        torch.bfloat16,
        four_bits("nf4", True),
        {
            "bias": "lora_only",
            "modules_to_save": ["lm_head"],
            "trainable_token_indices": {"embed_tokens": [3, 31]},
        },
    ),
)

# Name, shape, kind, whether double-quantised, block size. Odd counts, a last block that is not
# full, more than one block of block maxima, larger and smaller blocks.
SHAPES = (
    ("model.layers.0.self_attn.q_proj.weight", (70, 300), "nf4", True, 64),
    ("model.layers.0.self_attn.k_proj.weight", (5, 13), "nf4", False, 64),
    ("model.layers.0.self_attn.v_proj.weight", (9, 131), "fp4", True, 64),
    ("model.layers.0.mlp.up_proj.weight", (20, 100), "nf4", True, 32),
    ("model.layers.0.mlp.experts.up_proj", (3, 10, 50), "fp4", False, 128),
)


def config(case: Case) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE,
        num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, attention_bias="bias" in case.lora,
    )  # fmt: skip


def make_case(case: Case, seed: int) -> None:
    folder = FOLDER / case.name
    start_folder(folder)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config(case))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(WEIGHT_DEVIATION * torch.randn_like(parameter))
    original = folder / "original"
    model.to(case.dtype).save_pretrained(original)
    quantized = AutoModelForCausalLM.from_pretrained(
        original,
        dtype=case.dtype,
        device_map="cpu",
        quantization_config=BitsAndBytesConfig(**case.options),
    )
    quantized.save_pretrained(folder / "base")
    tidy(folder / "base")
    weights = dequantize(quantized)
    save(weights, folder / "dequantized.safetensors")
    merge(case, weights, original, folder)
    for path in original.iterdir():
        path.unlink()
    original.rmdir()


def dequantize(model) -> dict[str, torch.Tensor]:
    weights = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if type(weight).__name__ == "Params4bit":
            value = dequantize_codes(weight.data, weight.quant_state)
        elif type(weight).__name__ == "Int8Params":
            value = bitsandbytes.int8_vectorwise_dequant(weight.data, weight.SCB)
        else:
            continue
        weights[f"{name}.weight"] = value.contiguous()
    return weights


def dequantize_codes(data: torch.Tensor, state) -> torch.Tensor:
    # Code 8 of FP4 is +0 in the table and in some of bitsandbytes' kernels, -0 in others: +0 here.
    return bitsandbytes.dequantize_4bit(data, state).contiguous() + 0.0


def merge(case: Case, weights: dict, original: Path, folder: Path) -> None:
    # In the dtype of the dequantised weights: float32 for LLM.int8, then rounded once.
    compute = next(iter(weights.values())).dtype
    base = LlamaForCausalLM.from_pretrained(original, dtype=compute)
    base.load_state_dict(weights, strict=False)
    lora = LoraConfig(
        task_type="CAUSAL_LM", target_modules=TARGETS, r=4, lora_alpha=8, **case.lora
    )
    adapted = get_peft_model(base, lora)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.002 * torch.randn_like(parameter))
            elif "lora_magnitude_vector" in name:
                parameter.mul_(1 + 0.02 * torch.randn_like(parameter))
            elif is_trained_in_full(name, parameter):
                parameter.add_(0.02 * torch.randn_like(parameter))
    saved = adapted.peft_config["default"]
    saved.base_model_name_or_path, saved.target_modules = BASE_NAME, sorted(TARGETS)
    adapted.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink()
    tidy(folder / "adapter")
    base = LlamaForCausalLM.from_pretrained(original, dtype=compute)
    base.load_state_dict(weights, strict=False)
    merged = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload().state_dict()
    chosen = [name for name in merged if is_changed(case, name)]
    save({name: merged[name].to(case.dtype) for name in chosen}, folder / "merged.safetensors")


def is_changed(case: Case, name: str) -> bool:
    *_, module, parameter = name.split(".")
    if module in TARGETS:
        return parameter == "weight" or "bias" in case.lora
    tokens = case.lora.get("trainable_token_indices", {})
    return module in tokens or module in case.lora.get("modules_to_save", [])


def make_shapes() -> None:
    folder = FOLDER / "shapes"
    start_folder(folder)
    for name in ("base", "adapter"):
        (folder / name).mkdir()
    torch.manual_seed(99)
    packed, weights = {}, {}
    for name, shape, kind, double, block_size in SHAPES:
        weight = WEIGHT_DEVIATION * torch.randn(shape, dtype=torch.float32)
        data, state = bitsandbytes.quantize_4bit(
            weight.to(torch.bfloat16),
            blocksize=block_size,
            compress_statistics=double,
            quant_type=kind,
        )
        packed[name] = data
        packed |= {f"{name}.{key}": each for key, each in state.as_dict(packed=True).items()}
        weights[name] = dequantize_codes(data, state)
    save(packed, folder / "base" / WEIGHTS_FILE)
    quantization = BitsAndBytesConfig(**four_bits("nf4"))
    saved = LlamaConfig(quantization_config=quantization.to_dict(), dtype="bfloat16")
    saved.save_pretrained(folder / "base")
    save(weights, folder / "dequantized.safetensors")
    name, (rows, columns) = SHAPES[0][:2]
    stem = f"{PREFIX}{name.removesuffix('.weight')}"
    a, b = torch.randn(2, columns), 0.002 * torch.randn(rows, 2)
    factors = {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
    save(factors, folder / "adapter" / ADAPTER_FILE)
    merged = weights[name].clone()
    merged += (b @ a) * 1.5
    save({name: merged}, folder / "merged.safetensors")
    LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj"], r=2, lora_alpha=3,
        base_model_name_or_path=BASE_NAME,
    ).save_pretrained(folder / "adapter")  # fmt: skip
    for name in ("base", "adapter"):
        tidy(folder / name)


def save(tensors: dict, path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the goldens of quantised bases.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all of them")
    chosen = parser.parse_args().cases
    unknown = set(chosen) - {*(case.name for case in CASES), "shapes"}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for seed, case in enumerate(CASES, 51):
        if not chosen or case.name in chosen:
            make_case(case, seed)
            print(case.name)
    if not chosen or "shapes" in chosen:
        make_shapes()
        print("shapes")


if __name__ == "__main__":
    main()
