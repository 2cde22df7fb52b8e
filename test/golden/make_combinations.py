"""Writes what PEFT makes of several adapters, as goldens for `cat`, `svd` and the `peft_*` methods.

    .oracle/bin/python test/golden/make_combinations.py

combinations/<model>/ holds
- base/ and an adapter in each of the other folders, as PEFT saves them,
- <case>/merged.safetensors: the weights that the adapters change, as PEFT merges what
  add_weighted_adapter makes of the adapters of that case, and factors.safetensors: A and B of that.
  Of an embedding PEFT rounds the delta before it adds it, as of no other layer: here it is not.

cases.json says of each case what add_weighted_adapter was given.
"""

import json
import os
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers import LlamaConfig, LlamaForCausalLM

from golden_models import WEIGHT_DEVIATION, start_folder, target_of, tidy

FOLDER = Path(__file__).resolve().parent / "combinations"
HIDDEN, INTERMEDIATE, VOCABULARY = 32, 40, 24
DELTA_DEVIATION = 0.01
LLAMA_MODULES = ["q_proj", "down_proj"]
GPT2_MODULES = ["c_attn", "c_fc"]

# Other modules, alphas and ranks; rank-stabilised where it is not the first, whose flag PEFT gives to
# the result.
ADAPTERS = {
    "llama": {
        "a": {"r": 4, "lora_alpha": 6, "target_modules": [*LLAMA_MODULES, "embed_tokens"]},
        "b": {
            "r": 4,
            "lora_alpha": 8,
            "use_rslora": True,
            "target_modules": [*LLAMA_MODULES, "v_proj", "embed_tokens"],
        },
        "c": {"r": 4, "lora_alpha": 20, "target_modules": ["q_proj"]},
        "wide": {"r": 6, "lora_alpha": 9, "target_modules": [*LLAMA_MODULES, "embed_tokens"]},
    },
    "gpt2": {
        "a": {"r": 3, "lora_alpha": 6, "target_modules": GPT2_MODULES, "fan_in_fan_out": True},
        "b": {"r": 3, "lora_alpha": 4, "target_modules": GPT2_MODULES, "fan_in_fan_out": True},
    },
}


@dataclass(frozen=True)
class Case:
    name: str
    method: str
    adapters: tuple[str, ...]
    weights: tuple[float, ...]
    options: dict = field(default_factory=dict)
    models: tuple[str, ...] = ("llama-bf16", "llama-fp32")


BOTH = ("llama-bf16", "llama-fp32", "gpt2-bf16")
CASES = (
    Case("cat", "cat", ("a", "wide"), (0.7, -1.3)),
    Case("linear", "linear", ("a", "b"), (0.7, -1.3), models=BOTH),
    Case("linear_three", "linear", ("a", "b", "c"), (0.7, 1.1, 0.4)),
    Case("svd", "svd", ("a", "wide"), (0.7, -1.3)),
    Case("svd_rank", "svd", ("a", "b"), (1.0, 0.5), {"svd_rank": 2}, BOTH),
    Case("ties", "ties", ("a", "b", "c"), (1.0, 0.5, 0.8), {"density": 0.4}),
    Case(
        "ties_frequency", "ties", ("a", "b"), (1.0, -0.5),
        {"density": 0.7, "majority_sign_method": "frequency"}, BOTH,
    ),
    Case("magnitude_prune", "magnitude_prune", ("a", "b"), (1.5, 0.5), {"density": 0.3}, BOTH),
)  # fmt: skip
MODELS = {
    "llama-bf16": torch.bfloat16,
    "llama-fp32": torch.float32,
    "gpt2-bf16": torch.bfloat16,
}


def new_model(kind: str):
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY, n_positions=16, n_embd=HIDDEN, n_layer=1, n_head=2,
                n_inner=INTERMEDIATE, bos_token_id=1, eos_token_id=2,
            )
        )  # fmt: skip
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE,
            num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
            max_position_embeddings=16,
        )
    )  # fmt: skip


def fill(model, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(WEIGHT_DEVIATION * torch.randn_like(parameter))


def make_adapter(base: Path, dtype: torch.dtype, name: str, options: dict, seed: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    config = LoraConfig(task_type="CAUSAL_LM", **options)
    adapted = get_peft_model(model, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in adapted.modules():
            factors = target_of(module) if hasattr(module, "lora_A") else None
            for factor in factors or ():
                factor.copy_(DELTA_DEVIATION**0.5 * torch.randn_like(factor))
    saved = adapted.peft_config["default"]
    saved.base_model_name_or_path = "weldline/golden-combinations"
    saved.target_modules = sorted(options["target_modules"])
    adapted.save_pretrained(base.parent / name, save_embedding_layers=False)
    (base.parent / name / "README.md").unlink()
    tidy(base.parent / name)


def combine(folder: Path, dtype: torch.dtype, case: Case) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype)
    first, *others = case.adapters
    adapted = PeftModel.from_pretrained(model, folder / first, adapter_name=first)
    for name in others:
        adapted.load_adapter(folder / name, adapter_name=name)
    adapted.add_weighted_adapter(
        list(case.adapters), list(case.weights), "combined", case.method, **case.options
    )
    factors, merged = {}, {}
    for path, module in adapted.base_model.model.named_modules():
        found = combined_factors(module)
        if found is None:
            continue
        name = f"{path}.weight"
        factors |= {f"{path}.A": found[0], f"{path}.B": found[1]}
        weight = module.get_base_layer().weight.detach()
        delta = module.get_delta_weight("combined").float()
        merged[name] = (weight.float() + delta).to(dtype).contiguous()
    unchecked = adapted.merge_and_unload(adapter_names=["combined"]).state_dict()
    for name, weight in merged.items():
        if "embed_tokens" not in name and not torch.equal(weight, unchecked[name]):
            raise SystemExit(f"{folder.name} {case.name}: {name} is not what PEFT merges")
    start_folder(folder / case.name)
    save(factors, folder / case.name / "factors.safetensors")
    save(merged, folder / case.name / "merged.safetensors")


def combined_factors(module):
    if not hasattr(module, "lora_A"):
        return None
    if "combined" in module.lora_A:
        pair = module.lora_A["combined"].weight, module.lora_B["combined"].weight
    elif "combined" in module.lora_embedding_A:
        pair = module.lora_embedding_A["combined"], module.lora_embedding_B["combined"]
    else:
        return None
    return tuple(factor.detach().contiguous() for factor in pair)


def save(tensors: dict, path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    start_folder(FOLDER)
    for name, dtype in MODELS.items():
        kind = name.split("-")[0]
        folder = FOLDER / name
        model = new_model(kind)
        fill(model, 71)
        model.to(dtype).save_pretrained(folder / "base")
        tidy(folder / "base")
        for seed, (adapter, options) in enumerate(ADAPTERS[kind].items(), 81):
            make_adapter(folder / "base", dtype, adapter, options, seed)
        for case in CASES:
            if name in case.models:
                combine(folder, dtype, case)
                print(name, case.name)
    text = json.dumps([asdict(case) for case in CASES], indent=2)
    (FOLDER / "cases.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
