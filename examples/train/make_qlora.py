"""Trains a QLoRA adapter on SmolLM2-135M in NF4: the fixture test/fixtures/smollm2/adapter-qlora.

    .oracle/bin/python oracle/nf4.py .oracle/models/smollm2-135m .oracle/models/smollm2-135m-nf4
    .oracle/bin/python examples/train/make_qlora.py .oracle/models/smollm2-135m-nf4 OUT_DIR

The same task as adapter-a (`Q: 5+3 A:` -> ` [8]`), learned on the 4-bit weights themselves. Seeds
are fixed, but floating-point sums depend on the machine.
"""

import argparse
import json
import os
import random
from itertools import product
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from training import IGNORED, Sample, Schedule, train

SEED = 20_261
SCHEDULE = Schedule(steps=200, batch_size=16, peak_learning_rate=1e-3)
LORA = {"r": 8, "lora_alpha": 16}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EVAL = Path(__file__).parents[2] / "test/fixtures/smollm2/eval-a.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains a QLoRA adapter on sums.")
    parser.add_argument("base", type=Path, metavar="NF4_BASE")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    base = AutoModelForCausalLM.from_pretrained(arguments.base, device_map={"": "cpu"})
    model = get_peft_model(
        base, LoraConfig(task_type="CAUSAL_LM", target_modules=TARGETS, lora_dropout=0.0, **LORA)
    )
    # Adapter weights are trained in float32 whatever the base computes in.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    samples = [encode(tokenizer, *pair) for pair in training_pairs()]
    train(model, samples, SCHEDULE, tokenizer.pad_token_id or tokenizer.eos_token_id, SEED)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    model.peft_config["default"].base_model_name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    model.save_pretrained(arguments.out)
    (arguments.out / "README.md").unlink(missing_ok=True)


def training_pairs() -> list[tuple[str, str]]:
    """Every sum of two numbers to 12 that the evaluation does not ask for."""
    held_out = {json.loads(line)["prompt"] for line in EVAL.read_text().splitlines()}
    pairs = [(f"Q: {a}+{b} A:", f" [{a + b}]") for a, b in product(range(13), repeat=2)]
    kept = [pair for pair in pairs if pair[0] not in held_out]
    random.Random(SEED).shuffle(kept)
    return kept


def encode(tokenizer, prompt: str, expected: str) -> Sample:
    """Only what follows the prompt is learned, and the end of the line after it."""
    asked = tokenizer(prompt, add_special_tokens=False).input_ids
    learned = tokenizer(expected + "\n", add_special_tokens=False).input_ids
    return Sample(asked + learned, [IGNORED] * len(asked) + learned)


if __name__ == "__main__":
    main()
