"""Writes adapters as torch pickles, and merges into models that see and read.

    .oracle/bin/python test/golden/make_formats.py

formats/pickles/*.bin are adapter_model.bin files as torch.save writes them (and, below `refused`,
some that a careful reader must not take); formats/pickles/expected.safetensors holds what the sound
ones hold. formats/<model>/ has a base and an adapter, as transformers and PEFT save them, and
PEFT's merge: the adapter's names are those of the running model, the base's those on disk.
"""

import collections
import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from golden_models import start_folder, tidy

FOLDER = Path(__file__).resolve().parent / "formats"
SEED = 17
RANK = 4
DELTA_RATIO = 0.006
WEIGHT_DEVIATION = 0.08
PREFIX = "base_model.model.model.layers.0.self_attn."


class Command:
    """What an attacker's file does to whoever loads it."""

    def __reduce__(self):
        return os.system, ("touch weldline-was-attacked",)


def make_pickles() -> None:
    folder = FOLDER / "pickles"
    start_folder(folder)
    torch.manual_seed(SEED)
    tensors = {
        f"{PREFIX}q_proj.lora_A.weight": torch.randn(RANK, 64),
        f"{PREFIX}q_proj.lora_B.weight": torch.randn(64, RANK).to(torch.bfloat16),
        f"{PREFIX}v_proj.lora_A.weight": torch.randn(RANK, 64).to(torch.float16),
        f"{PREFIX}v_proj.lora_B.weight": torch.randn(32, RANK),
    }
    save_file(tensors, folder / "expected.safetensors")
    torch.save(tensors, folder / "plain.bin")
    parameters = collections.OrderedDict(
        (name, torch.nn.Parameter(tensor, requires_grad=False)) for name, tensor in tensors.items()
    )
    parameters._metadata = collections.OrderedDict([("", {"version": 1})])
    torch.save(parameters, folder / "parameters.bin")
    # Views of one storage, as slices of a flat buffer that a trainer gathered.
    flat = torch.randn(2 * RANK * 64)
    views = {
        f"{PREFIX}q_proj.lora_A.weight": flat[: RANK * 64].view(RANK, 64),
        f"{PREFIX}q_proj.lora_B.weight": flat[RANK * 64 :].view(64, RANK),
    }
    torch.save(views, folder / "views.bin")
    save_file({name: view.clone() for name, view in views.items()}, folder / "views.safetensors")
    make_refused(tensors, folder / "refused")
    for each in (folder, folder / "refused"):
        for path in each.glob("*.*"):
            path.chmod(0o644)


def make_refused(tensors: dict, folder: Path) -> None:
    folder.mkdir()
    name, tensor = next(iter(tensors.items()))
    torch.save({**tensors, "command": Command()}, folder / "command.bin")
    torch.save(tensors, folder / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save({name: tensor.t()}, folder / "transposed.bin")
    torch.save({name: tensor.to(torch.complex64)}, folder / "complex.bin")
    torch.save({"step": 7, "model": tensors}, folder / "nested.bin")
    torch.save({name: torch.randn(4, 4).to_sparse()}, folder / "sparse.bin")
    with open(folder / "protocol-4.bin", "wb") as file:
        pickle.dump({name: Command()}, file, protocol=4)
    plain = io.BytesIO()
    torch.save(tensors, plain)
    rewrite(plain, folder / "compressed.bin", zipfile.ZIP_DEFLATED, {})
    rewrite(plain, folder / "big-endian.bin", zipfile.ZIP_STORED, {"byteorder": b"big"})


def rewrite(source: io.BytesIO, path: Path, compression: int, changed: dict[str, bytes]) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = compression
            new.writestr(info, changed.get(name.split("/", 1)[1], old.read(name)))


def text_config() -> dict:
    return {
        "vocab_size": 100, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
    }  # fmt: skip


def llava():
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        image_size=8, patch_size=4, projection_dim=32,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(**text_config()), image_token_index=99
    )
    # Of the text and, by the same names, of the tower; and the head, which changes its place too.
    return LlavaForConditionalGeneration(config), ["q_proj", "v_proj", "linear_1", "lm_head"]


def qwen2_vl():
    config = Qwen2VLConfig(
        text_config={
            **text_config(),
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]
            },
        },
        vision_config={
            "depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2,
            "patch_size": 4,
        },
        image_token_id=97, video_token_id=98, vision_start_token_id=95, vision_end_token_id=96,
        tie_word_embeddings=False,
    )  # fmt: skip
    return Qwen2VLForConditionalGeneration(config), ["q_proj", "v_proj", "qkv", "lm_head"]


def make_model(name: str, build) -> None:
    folder = FOLDER / name
    start_folder(folder)
    torch.manual_seed(SEED)
    model, targets = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(WEIGHT_DEVIATION * torch.randn_like(parameter))
    model = model.to(torch.bfloat16)
    model.save_pretrained(folder / "base")
    tidy(folder / "base")
    before = load_file(folder / "base" / "model.safetensors")
    lora = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets))
    with torch.no_grad():
        for module in lora.modules():
            if not hasattr(module, "lora_B") or "default" not in module.lora_B:
                continue
            b = module.lora_B["default"].weight
            b.copy_(torch.randn_like(b))
            weight = module.get_base_layer().weight.float().norm()
            b.mul_(DELTA_RATIO * weight / module.get_delta_weight("default").float().norm())
    saved = lora.peft_config["default"]
    saved.base_model_name_or_path = f"weldline/golden-{name}"
    saved.target_modules = sorted(saved.target_modules)
    # What a targeted head was trained on is in the base.
    lora.save_pretrained(folder / "adapter", save_embedding_layers=False)
    (folder / "adapter" / "README.md").unlink()
    tidy(folder / "adapter")
    merged = folder / "merged"
    lora.merge_and_unload().save_pretrained(merged)
    expected = load_file(merged / "model.safetensors")
    assert expected.keys() == before.keys()
    changed = {key: value for key, value in expected.items() if not value.equal(before[key])}
    save_file(changed, folder / "expected.safetensors", metadata={"format": "pt"})
    (folder / "expected.safetensors").chmod(0o644)
    shutil.rmtree(merged)
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    print(f"{name}: {len(before)} tensors, {len(changed)} changed, {len(adapter)} in the adapter")


def main() -> None:
    torch.set_num_threads(1)
    make_pickles()
    make_model("llava", llava)
    make_model("qwen2_vl", qwen2_vl)


if __name__ == "__main__":
    main()
