"""Writes perplexity.json: how transformers tokenises for examples/tiny/base and how well that model
predicts a text, by the windows of evaluation/perplexity.ts, which are cut here once more.

    .oracle/bin/python test/golden/make_perplexity.py
"""

import json
import math
import os
import random
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
MODEL = HERE.parent.parent / "examples" / "tiny" / "base"
OUTPUT = HERE / "perplexity.json"

# Without spaces at the start, or special tokens before text: there llama.cpp puts a space that
# transformers does not.
TEXTS = ["Q: 9+1 =", "two  spaces and a\nline", "Grüße, 世界 🙂", "<s></s>", ""]
# The model's positions; a model with more than 2048 has windows of 2048.
WINDOW_CHARACTERS = 256
SEAM_CHARACTERS = 64
COUNTED_TOKENS_MAX = 256


def make_text() -> str:
    choose = random.Random(5)
    names, teams = ["Hugo", "Anna", "Emil"], ["blue", "red"]
    sentences = []
    for _ in range(220):
        a, b = choose.randint(1, 9), choose.randint(1, 9)
        name, team = choose.choice(names), choose.choice(teams)
        sentences.append(f"{a} plus {b} is {a + b}.")
        sentences.append(f"name {name}, team {team}. The team is {team}.")
    return "\n".join(sentences)[:4000]


def window_end(text: str, start: int) -> int:
    limit = start + WINDOW_CHARACTERS
    if limit >= len(text):
        return len(text)
    for end in range(limit, limit - SEAM_CHARACTERS, -1):
        if text[end - 1].isspace() and not text[end].isspace():
            return end
    return limit


def cut(text: str) -> list[str]:
    windows, start = [], 0
    while start < len(text):
        end = window_end(text, start)
        windows.append(text[start:end])
        start = end
    return windows


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    text = make_text()
    nats, counted = 0.0, 0
    for window in cut(text):
        ids = tokenizer(window, return_tensors="pt").input_ids
        with torch.no_grad():
            rows = torch.log_softmax(model(ids).logits[0].double(), -1)
        length = ids.shape[1]
        first = max(math.ceil(length / 2), length - COUNTED_TOKENS_MAX)
        for index in range(first, length):
            nats -= rows[index - 1, ids[0, index]].item()
            counted += 1
    tokenized = [
        {
            "text": each,
            "with": tokenizer(each)["input_ids"],
            "without": tokenizer(each, add_special_tokens=False)["input_ids"],
        }
        for each in TEXTS
    ]
    document = {
        "transformers": transformers.__version__,
        "tokenized": tokenized,
        "text": text,
        "windows": len(cut(text)),
        "tokens": counted,
        "value": math.exp(nats / counted),
    }
    OUTPUT.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
