"""Writes merges of adapters and bases that cut the same weights differently.

    .oracle/bin/python test/golden/make_blocks.py [CASE ...]

For each case, blocks/<case>/ holds
- base/ as transformers saves it, in bfloat16 (`mixtral_fused` in shards),
- adapter/ as PEFT saves it (in `mixtral_one_by_one` as PEFT saved it with transformers 4),
- merged.safetensors: the tensors that the adapter changes, under their names on disk.

PEFT merges in a float32 twin of the base, and the result is rounded to bfloat16 once: its
`ParamWrapper` would round the delta of fused experts before it adds it.

`phi3_separate` and `llama_fused` are one model in two spellings, a Phi-3 and a Llama that has its
projections separately; what PEFT merges into the one is fused or cut to become the other's.
In `llama_replicated`, a model built from the merged tensors must have the logits of PEFT's forward.
"""

import argparse
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from golden_models import WEIGHT_DEVIATION, load_on_disk, start_folder, tidy

FOLDER = Path(__file__).resolve().parent / "blocks"
HIDDEN, INTERMEDIATE, EXPERTS, VOCABULARY = 32, 24, 4, 40
# Spreads the experts of a layer over shards.
SHARD_BYTES_MAX = "40KB"
DELTA_RATIO = 0.02
PREFIX = "base_model.model."
EXPERT_PARAMETERS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 64, "tie_word_embeddings": False, "pad_token_id": 0,
}  # fmt: skip
EXPERT_COUNT = {"num_local_experts": EXPERTS, "num_experts_per_tok": 2}


def new_model(kind: str, seed: int, **changes):
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**COMMON | changes)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(centre + WEIGHT_DEVIATION * torch.randn_like(parameter))
    return model.to(torch.bfloat16)


def save_base(model, folder: Path, **options) -> None:
    model.save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tidy(folder)


def train(base: Path, folder: Path, seed: int, **lora) -> None:
    """Saves an adapter whose factors are random, and whose deltas have a share of their weights."""
    torch.manual_seed(seed)
    model = load(base)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter))
            elif "lora_magnitude_vector" in name:
                parameter.mul_(1 + 0.02 * torch.randn_like(parameter))
        for module in model.modules():
            if "default" in getattr(module, "lora_B", {}):
                parameter = getattr(module, "parameter_name", "weight")
                weight = getattr(module.get_base_layer(), parameter).float()
                delta = module.get_delta_weight("default").float()
                module.lora_B["default"].weight.mul_(DELTA_RATIO * weight.norm() / delta.norm())
    config = model.peft_config["default"]
    config.base_model_name_or_path = "weldline/golden-blocks"
    for key in ("target_modules", "target_parameters"):
        if getattr(config, key) is not None:
            setattr(config, key, sorted(getattr(config, key)))
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    tidy(folder)


def load(base: Path):
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def merge(base: Path, adapter: Path, scratch: Path, **options) -> dict[str, torch.Tensor]:
    """PEFT's merge in float32, under the names on disk, rounded to bfloat16."""
    model = PeftModel.from_pretrained(load(base), adapter).merge_and_unload(safe_merge=False)
    start_folder(scratch)
    model.save_pretrained(scratch, **options)
    return {name: tensor.to(torch.bfloat16) for name, tensor in load_on_disk(scratch).items()}


def write_merged(base: Path, merged: dict, folder: Path, untouched: int) -> None:
    """Keeps what differs from the base; how many tensors do not is known beforehand."""
    before = load_on_disk(base)
    changed = {
        name: tensor.contiguous()
        for name, tensor in merged.items()
        if name not in before or not torch.equal(tensor, before[name])
    }
    assert len(merged) - len(changed) == untouched, (len(merged), len(changed))
    save_file(changed, folder / "merged.safetensors", metadata={"format": "pt"})
    (folder / "merged.safetensors").chmod(0o644)


def make_experts(
    folder: Path, kind: str, seed: int, lora: dict, untouched: int, shards=False, **changes
) -> None:
    options = {"max_shard_size": SHARD_BYTES_MAX} if shards else {}
    save_base(new_model(kind, seed, **changes), folder / "base", **options)
    train(folder / "base", folder / "adapter", seed + 1, **lora)
    merged = merge(folder / "base", folder / "adapter", folder / "scratch")
    write_merged(folder / "base", merged, folder, untouched)


def mixtral_fused(folder: Path) -> None:
    """Experts, the router and attention of a Mixtral of two layers."""
    lora = {
        "r": 3, "lora_alpha": 5, "target_modules": ["q_proj"],
        "target_parameters": [*EXPERT_PARAMETERS, "mlp.gate.weight"],
    }  # fmt: skip
    make_experts(folder, "Mixtral", 101, lora, 13, shards=True, num_hidden_layers=2, **EXPERT_COUNT)


def mixtral_square(folder: Path) -> None:
    """down_proj is square; gate_up_proj is not, and tells how the adapter is to be read."""
    lora = {"r": 2, "lora_alpha": 4, "target_modules": [], "target_parameters": EXPERT_PARAMETERS}
    make_experts(folder, "Mixtral", 102, lora, 10, intermediate_size=HIDDEN, **EXPERT_COUNT)


def qwen3_moe_fused(folder: Path) -> None:
    """Ranks and strengths of their own for one parameter, rank-stabilised."""
    lora = {
        "r": 2, "lora_alpha": 4, "use_rslora": True, "target_modules": ["v_proj"],
        "rank_pattern": {"experts.gate_up_proj": 4}, "alpha_pattern": {"mlp.experts.down_proj": 7},
        "target_parameters": EXPERT_PARAMETERS,
    }  # fmt: skip
    changes = {"num_experts": EXPERTS, "num_experts_per_tok": 2,
               "moe_intermediate_size": INTERMEDIATE, "decoder_sparse_step": 1}  # fmt: skip
    make_experts(folder, "Qwen3Moe", 103, lora, 11, **changes)


def gpt_oss_fused(folder: Path) -> None:
    """Fused on disk too, [experts, in, out], gate and up alternating."""
    lora = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
            "target_parameters": EXPERT_PARAMETERS}  # fmt: skip
    changes = {"layer_types": ["full_attention"]}
    make_experts(folder, "GptOss", 104, lora, 17, **EXPERT_COUNT, **changes)


def mixtral_one_by_one(folder: Path) -> None:
    """LoRA on each expert's modules, as transformers 4 had them; the base in both layouts."""
    model = new_model("Mixtral", 105, **EXPERT_COUNT)
    save_base(model, folder / "base")
    save_base(model, folder / "base_fused", save_original_format=False)
    torch.manual_seed(106)
    rank, tensors = 2, {}
    inner = (INTERMEDIATE, HIDDEN)
    shapes = {"w1": inner, "w3": inner, "w2": (HIDDEN, INTERMEDIATE)}
    for expert in range(EXPERTS):
        for name, (out, inputs) in shapes.items():
            stem = f"{PREFIX}model.layers.0.block_sparse_moe.experts.{expert}.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, inputs) / 16
            tensors[f"{stem}.lora_B.weight"] = torch.randn(out, rank) / 100
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank,
        "target_modules": sorted(shapes), "base_model_name_or_path": "weldline/golden-blocks",
    }  # fmt: skip
    adapter = folder / "adapter"
    start_folder(adapter)
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    (adapter / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tidy(adapter)
    merged = merge(folder / "base", adapter, folder / "scratch")
    write_merged(folder / "base", merged, folder, 10)
    fused = merge(folder / "base", adapter, folder / "scratch", save_original_format=False)
    before = load_on_disk(folder / "base_fused")
    changed = {n: t.contiguous() for n, t in fused.items() if not torch.equal(t, before[n])}
    assert len(changed) == 2, sorted(changed)
    save_file(changed, folder / "merged_fused.safetensors", metadata={"format": "pt"})
    (folder / "merged_fused.safetensors").chmod(0o644)


def separate(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A Phi-3's weights under the names of a Llama."""
    result = {}
    for name, tensor in tensors.items():
        if "qkv_proj" in name:
            parts = tensor.split([32, 16, 16])
            names = ("q_proj", "k_proj", "v_proj")
            result |= {name.replace("qkv_proj", n): p.clone() for n, p in zip(names, parts)}
        elif "gate_up_proj" in name:
            gate, up = tensor.chunk(2)
            result[name.replace("gate_up_proj", "gate_proj")] = gate.clone()
            result[name.replace("gate_up_proj", "up_proj")] = up.clone()
        else:
            result[name] = tensor
    return result


def fuse(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    result = dict(tensors)
    for names, fused in ((("q_proj", "k_proj", "v_proj"), "qkv_proj"),
                         (("gate_proj", "up_proj"), "gate_up_proj")):  # fmt: skip
        for first in [name for name in tensors if f".{names[0]}." in name]:
            parts = [result.pop(first.replace(names[0], name)) for name in names]
            result[first.replace(names[0], fused)] = torch.cat(parts)
    return result


def both_spellings(folder: Path, seed: int) -> tuple[Path, Path]:
    phi3, llama = folder / "phi3", folder / "llama"
    save_base(new_model("Phi3", seed), phi3)
    model = new_model("Llama", seed)
    model.load_state_dict(separate(load_on_disk(phi3)))
    save_base(model, llama)
    return phi3, llama


def make_projections(folder: Path, seed: int, adapter_on: str, lora: dict, untouched: int) -> None:
    phi3, llama = both_spellings(folder, seed)
    trained, base = (llama, phi3) if adapter_on == "llama" else (phi3, llama)
    train(trained, folder / "adapter", seed + 1, **lora)
    merged = merge(trained, folder / "adapter", folder / "scratch")
    base.rename(folder / "base")
    respell = fuse if adapter_on == "llama" else separate
    write_merged(folder / "base", respell(merged), folder, untouched)


def phi3_separate(folder: Path) -> None:
    lora = {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]}
    make_projections(folder, 107, "llama", lora, 6)


def phi3_separate_dora(folder: Path) -> None:
    lora = {"r": 3, "lora_alpha": 6, "use_dora": True,
            "target_modules": ["k_proj", "gate_proj", "up_proj"]}  # fmt: skip
    make_projections(folder, 109, "llama", lora, 7)


def llama_fused(folder: Path) -> None:
    lora = {"r": 3, "lora_alpha": 6, "target_modules": ["qkv_proj", "gate_up_proj"]}
    make_projections(folder, 111, "phi3", lora, 7)


def llama_fused_dora(folder: Path) -> None:
    lora = {"r": 3, "lora_alpha": 6, "use_dora": True,
            "target_modules": ["qkv_proj", "gate_up_proj"]}  # fmt: skip
    make_projections(folder, 113, "phi3", lora, 7)


def llama_replicated(folder: Path) -> None:
    """Layers 0, 1, 1 of a base of two, each with a delta of its own."""
    save_base(new_model("Llama", 115, num_hidden_layers=2), folder / "base")
    lora = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"],
            "layer_replication": [[0, 2], [1, 2]]}  # fmt: skip
    train(folder / "base", folder / "adapter", 116, **lora)
    model = PeftModel.from_pretrained(load(folder / "base"), folder / "adapter")
    before = load_on_disk(folder / "base")
    sources = [0, 1, 1]
    whole = {n: t.float() for n, t in before.items() if ".layers." not in n}
    for layer, source in enumerate(sources):
        stem = f"model.layers.{source}."
        for name, tensor in before.items():
            if name.startswith(stem):
                whole[f"model.layers.{layer}.{name.removeprefix(stem)}"] = tensor.float()
    for name, module in model.named_modules():
        if "default" in getattr(module, "lora_A", {}):
            name = f"{name.removeprefix(PREFIX)}.weight"
            whole[name] = whole[name] + module.get_delta_weight("default")
    ids = torch.arange(1, 30)[None]
    # Not by way of bfloat16, which its rotary frequencies would not survive.
    twin = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**COMMON | {"num_hidden_layers": 3})
    ).eval()
    twin.load_state_dict(whole)
    with torch.no_grad():
        theirs, ours = model(input_ids=ids).logits, twin(input_ids=ids).logits
        plain = load(folder / "base")(input_ids=ids).logits
    assert torch.allclose(theirs, ours, atol=1e-5), (theirs - ours).abs().max()
    assert not torch.allclose(theirs, plain, atol=1e-2)
    merged = {name: tensor.to(torch.bfloat16) for name, tensor in whole.items()}
    write_merged(folder / "base", merged, folder, 17)


CASES = [
    mixtral_fused, mixtral_square, qwen3_moe_fused, gpt_oss_fused, mixtral_one_by_one,
    phi3_separate, phi3_separate_dora, llama_fused, llama_fused_dora, llama_replicated,
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE")
    chosen = parser.parse_args().cases or [case.__name__ for case in CASES]
    torch.set_num_threads(1)
    for case in CASES:
        if case.__name__ not in chosen:
            continue
        folder = FOLDER / case.__name__
        start_folder(folder)
        case(folder)
        for scratch in ("scratch", "phi3", "llama"):
            if (folder / scratch).exists():
                start_folder(folder / scratch)
                (folder / scratch).rmdir()
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        changed = len(load_file(folder / "merged.safetensors"))
        print(f"{case.__name__}: {changed} tensors changed, {size // 1000} kB", flush=True)


if __name__ == "__main__":
    main()
