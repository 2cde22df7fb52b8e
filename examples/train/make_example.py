"""Trains the example model and its adapters from scratch.

    .oracle/bin/python examples/train/make_example.py [--out DIR] [--only base|adapters|eval]

About ten minutes on one core, without a GPU or a download. Seeds are fixed, but floating-point
sums depend on the machine, so another machine gets an equally good model, not the same bytes.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from corpus import Exercise, make_base_lines, make_calculator, make_extractor, text_of
from tokenizer import VOCABULARY_SIZE, check_tokenizers_agree, train_tokenizer
from training import Schedule, encode_line, train

BASE_NAME = "weldline/example-base"
# Sums in one order; two busy threads that wait for each other are slower on a shared machine.
THREADS = 1
SEED = 20_260
BASE_LINES = 40_000
TOKENIZER_LINES = 8_000
BASE_SCHEDULE = Schedule(steps=1400, batch_size=32, peak_learning_rate=2e-3)
ADAPTER_SCHEDULES = {
    "calculator": Schedule(steps=300, batch_size=32, peak_learning_rate=2e-3),
    "extractor": Schedule(steps=500, batch_size=32, peak_learning_rate=4e-3),
}
LORA_RANK = 8
CALIBRATION_COUNT = 64

# Every width is a multiple of 256 (llama.cpp's K-quants) and of 128 (AWQ groups).
MODEL = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


def make_adapters_data() -> dict[str, tuple[list[Exercise], list[Exercise]]]:
    return {"calculator": make_calculator(SEED + 1), "extractor": make_extractor(SEED + 2)}


def write_eval(folder: Path) -> None:
    for name, (_, held_out) in make_adapters_data().items():
        write_lines(folder / f"{name}.jsonl", [vars(exercise) for exercise in held_out])


def write_calibration(folder: Path) -> None:
    """Texts that the adapter was trained on: an evaluation must not calibrate what it judges."""
    for name, (trained_on, _) in make_adapters_data().items():
        texts = [{"text": text_of([exercise])} for exercise in trained_on[:CALIBRATION_COUNT]]
        write_lines(folder / f"{name}.jsonl", texts)


def write_lines(path: Path, values: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def make_base(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = make_base_lines(BASE_LINES, SEED)
    texts = [text_of(line) for line in lines]
    others = [each for data in make_adapters_data().values() for each in data[0][:500]]
    formats = [text_of([exercise]) for exercise in others]
    # The adapters' formats take part so that their punctuation becomes tokens, not bytes.
    train_tokenizer(texts[:TOKENIZER_LINES] + formats, folder)
    check_tokenizers_agree(folder, texts[:500] + formats + ["héllo\nworld  two", "a\n b"])
    tokenizer = AutoTokenizer.from_pretrained(folder)

    torch.manual_seed(SEED)
    model = LlamaForCausalLM(LlamaConfig(**MODEL))
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"base: {count} parameters, {len(lines)} lines")
    samples = [encode_line(tokenizer, line) for line in lines]
    train(model, samples, BASE_SCHEDULE, tokenizer.pad_token_id, SEED)
    model = model.to(torch.bfloat16)
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    tidy(folder)


def make_adapter(base: Path, folder: Path, exercises: list[Exercise]) -> None:
    from peft import LoraConfig, get_peft_model

    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(base)
    # The values are the released bfloat16 ones; the arithmetic of training is float32.
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(SEED)
    config = LoraConfig(
        r=LORA_RANK,
        lora_alpha=2 * LORA_RANK,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        base_model_name_or_path=BASE_NAME,
    )
    model = get_peft_model(model, config)
    samples = [encode_line(tokenizer, [exercise]) for exercise in exercises]
    print(f"{folder.name}: {len(samples)} exercises")
    train(model, samples, ADAPTER_SCHEDULES[folder.name], tokenizer.pad_token_id, SEED)
    # get_peft_model put the directory the base was loaded from in its place.
    model.peft_config["default"].base_model_name_or_path = BASE_NAME
    model.peft_config["default"].target_modules = sorted(
        model.peft_config["default"].target_modules
    )
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's template of a model card.
    tidy(folder)


def tidy(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors leaves its temporary file's 0600


def main() -> None:
    default = Path(__file__).resolve().parent.parent / "tiny"
    parser = argparse.ArgumentParser(description="Trains the example model and its adapters.")
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--only", choices=("base", "adapters", "eval"))
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    base = arguments.out / "base"
    if arguments.only in (None, "eval"):
        write_eval(arguments.out / "eval")
        write_calibration(arguments.out / "calibration")
    if arguments.only in (None, "base"):
        make_base(base)
    if arguments.only in (None, "adapters"):
        for name, (exercises, _) in make_adapters_data().items():
            make_adapter(base, arguments.out / "adapters" / name, exercises)


if __name__ == "__main__":
    main()
