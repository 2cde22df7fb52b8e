"""Writes adapters as mlx-lm saves them, and what its layers fuse them to.

    python -m venv mlx; mlx/bin/pip install "mlx[cpu]==0.32.4" mlx-lm==0.32.2
    mlx/bin/python test/golden/make_mlx.py

formats/mlx-<kind>/ has an adapter for cases/plain-fp32/base, and in expected.safetensors the
weights that `fuse` of mlx-lm's own layers gives, in float32.
"""

import importlib.metadata
import json
import platform
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.dora import DoRAEmbedding, DoRALinear
from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear

FOLDER = Path(__file__).resolve().parent
SEED = 23
RANK, SCALE = 4, 10.0
EMBEDDING = "model.embed_tokens"
# Square, narrow and wide.
MODULES = ["self_attn.q_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.down_proj"]
TARGETS = [EMBEDDING, *(f"model.layers.1.{module}" for module in MODULES)]
LAYERS = {"lora": (LoRALinear, LoRAEmbedding), "dora": (DoRALinear, DoRAEmbedding)}


def plain_layer(module: str, weight: mx.array):
    rows, columns = weight.shape
    if module == EMBEDDING:
        layer = nn.Embedding(rows, columns)
    else:
        layer = nn.Linear(columns, rows, bias=False)
    layer.weight = weight
    return layer


def make(kind: str) -> None:
    folder = FOLDER / "formats" / f"mlx-{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    mx.random.seed(SEED)
    base = mx.load(str(FOLDER / "cases/plain-fp32/base/model.safetensors"))
    adapter, expected = {}, {}
    linear, embedding = LAYERS[kind]
    for module in TARGETS:
        layer_class = embedding if module == EMBEDDING else linear
        plain = plain_layer(module, base[f"{module}.weight"])
        layer = layer_class.from_base(plain, r=RANK, scale=SCALE)
        layer.lora_b = 0.002 * mx.random.normal(layer.lora_b.shape)
        names = ["lora_a", "lora_b"]
        if kind == "dora":
            layer.m = layer.m * (1 + 0.02 * mx.random.normal(layer.m.shape))
            names.append("m")
        adapter |= {f"{module}.{name}": layer[name] for name in names}
        expected[f"{module}.weight"] = layer.fuse().weight
    mx.save_safetensors(str(folder / "adapters.safetensors"), adapter)
    mx.save_safetensors(str(folder / "expected.safetensors"), expected)
    config = {
        "adapter_path": "adapters",
        "batch_size": 4,
        "fine_tune_type": kind,
        "lora_parameters": {"rank": RANK, "dropout": 0.0, "scale": SCALE},
        "model": "weldline/golden-llama",
        "num_layers": 1,
        "seed": SEED,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=4) + "\n")


def main() -> None:
    for kind in LAYERS:
        make(kind)
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("mlx", "mlx-lm"):
        versions[package] = importlib.metadata.version(package)
    path = FOLDER / "formats" / "MLX_VERSIONS.json"
    path.write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
