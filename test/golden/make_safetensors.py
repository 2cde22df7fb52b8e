"""Writes safetensors files with the format's reference implementation, as goldens for a reader.

    .oracle/bin/python test/golden/make_safetensors.py

safetensors/<name>.safetensors are valid files; safetensors/expected.json says what each holds:
its metadata and, by tensor name, dtype and shape as the header spells them, and the SHA-256 of
the tensor's bytes. The library writes metadata in no fixed order, so names.safetensors, which has
several entries, may change its bytes from run to run.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save

FOLDER = Path(__file__).resolve().parent / "safetensors"
SEED = 7
# The header's spelling of a dtype, and torch's; the bytes are random, so every bit pattern of the
# narrow types occurs (NaNs and subnormals too), and only BOOL has invalid ones.
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    if dtype == torch.bool:
        return torch.randint(0, 2, shape).bool()
    count = dtype.itemsize
    for size in shape:
        count *= size
    return torch.randint(0, 256, (count,), dtype=torch.uint8).view(dtype).reshape(shape)


def make_files() -> dict[str, tuple[dict[str, torch.Tensor], dict[str, str] | None]]:
    """File name to its tensors and metadata."""
    torch.manual_seed(SEED)
    every_dtype = {f"tensor.{name}": random_tensor(dtype, (3, 5)) for name, dtype in DTYPES.items()}
    shapes = {
        "scalar": random_tensor(torch.float32, ()),
        "scalar.bool": random_tensor(torch.bool, ()),
        "empty": random_tensor(torch.bfloat16, (0,)),
        "empty.matrix": random_tensor(torch.float32, (4, 0)),
        "vector": random_tensor(torch.bfloat16, (17,)),
        "cube": random_tensor(torch.int16, (2, 3, 4)),
        "six.dimensions": random_tensor(torch.uint8, (1, 2, 1, 3, 1, 2)),
    }
    names = {
        "": random_tensor(torch.uint8, (2,)),
        "with space": random_tensor(torch.uint8, (3,)),
        'quote " and \\ backslash': random_tensor(torch.uint8, (4,)),
        "gewicht.größe.重み": random_tensor(torch.uint8, (5,)),
        "__proto__": random_tensor(torch.uint8, (6,)),
        "constructor": random_tensor(torch.uint8, (7,)),
        "tab\tand\nnewline": random_tensor(torch.uint8, (8,)),
        "7": random_tensor(torch.uint8, (9,)),
    }
    return {
        "every-dtype": (every_dtype, {"format": "pt"}),
        "shapes": (shapes, None),
        "names": (names, {"format": "pt", "näme": 'quoted "text"', "empty": ""}),
        "no-tensors": ({}, {"format": "pt"}),
        "nothing": ({}, None),
    }


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def describe(tensor: torch.Tensor) -> dict:
    spelling = next(name for name, dtype in DTYPES.items() if dtype == tensor.dtype)
    digest = hashlib.sha256(tensor_bytes(tensor)).hexdigest()
    return {"dtype": spelling, "shape": list(tensor.shape), "sha256": digest}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    expected = {}
    for name, (tensors, metadata) in make_files().items():
        path = FOLDER / f"{name}.safetensors"
        path.write_bytes(save(tensors, metadata))
        expected[path.name] = {
            "metadata": metadata,
            "tensors": {key: describe(tensor) for key, tensor in tensors.items()},
        }
        print(f"{path.name}: {path.stat().st_size} bytes, {len(tensors)} tensors")
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (FOLDER / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
