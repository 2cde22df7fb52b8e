"""Asks models an evaluation's prompts, greedily, and counts the exact answers.

    python oracle/answers.py --model DIR [--adapter DIR] --eval FILE [--limit N] --json OUT
    python oracle/answers.py --candidate NAME=MODEL[:ADAPTER] ... --eval FILE ... --json OUT

FILE holds lines of {"prompt", "expected"}. An answer is what follows the prompt up to the end of
the line or of the text, and is correct when it equals `expected`, spaces included. The adapter is
applied by PEFT without merging it. `-` as OUT is standard output.

The first form writes one result, {results: [{prompt, expected, answer, correct}], correct, total,
seconds}. The second, for several candidates or files, answers all of them in one process, because
importing torch and PEFT takes far longer than the answers; it writes {candidates: {NAME: {FILE's
stem: result}}, import_seconds}.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

# Must be set before the imports. Nothing here may reach out to the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"
# Threads that wait by spinning make a shared machine several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

NEW_TOKENS_MAX = 12
THREADS_MAX = 2


@dataclass(frozen=True)
class Candidate:
    name: str
    model: Path
    adapter: Path | None


def parse_candidate(text: str) -> Candidate:
    name, equals, paths = text.partition("=")
    model, _, adapter = paths.partition(":")
    if not (name and equals and model):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=MODEL[:ADAPTER]")
    return Candidate(name, Path(model), Path(adapter) if adapter else None)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Counts a model's exact answers.")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--candidate", type=parse_candidate, action="append", default=[])
    parser.add_argument("--eval", type=Path, action="append", required=True)
    parser.add_argument("--limit", type=int, help="only the first N prompts of each file")
    parser.add_argument("--max-new-tokens", type=int, default=NEW_TOKENS_MAX)
    parser.add_argument("--json", required=True, help="where to write; - is standard output")
    arguments = parser.parse_args()
    if (arguments.model is None) == (not arguments.candidate):
        parser.error("give either --model or --candidate")
    if arguments.model is not None and len(arguments.eval) != 1:
        parser.error("--model takes one --eval; use --candidate for several")
    if arguments.adapter is not None and arguments.model is None:
        parser.error("--adapter belongs to --model; a candidate names its adapter after a colon")
    return arguments


def read_exercises(path: Path, limit: int | None) -> list[dict[str, str]]:
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    exercises = [json.loads(line) for line in lines[:limit]]
    for number, exercise in enumerate(exercises, start=1):
        if not {"prompt", "expected"} <= exercise.keys():
            sys.exit(f"answers: {path}:{number}: needs the keys prompt and expected")
    if not exercises:
        sys.exit(f"answers: {path} holds no prompt")
    return exercises


def load(candidate: Candidate):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(candidate.model)
    # The values are the checkpoint's; only the arithmetic is float32, which most CPUs do far
    # faster than bfloat16.
    model = AutoModelForCausalLM.from_pretrained(candidate.model, dtype=torch.float32)
    if candidate.adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, candidate.adapter)
    return model.eval(), tokenizer


def answer_all(model, tokenizer, prompts: list[str], new_tokens_max: int) -> list[str]:
    """The texts after the prompts, in order.

    Prompts of one length in tokens go through the model together: that is several times faster,
    and unlike padding to one length it changes nothing that a prompt sees.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    encoded = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    for index, token_ids in enumerate(encoded):
        by_length[len(token_ids)].append(index)
    answers = [""] * len(prompts)
    for indexes in by_length.values():
        token_ids = [encoded[index] for index in indexes]
        given = answer(model, tokenizer, token_ids, new_tokens_max)
        for index, text in zip(indexes, given):
            answers[index] = text
    return answers


def answer(model, tokenizer, encoded: list[list[int]], new_tokens_max: int) -> list[str]:
    import torch

    input_ids = torch.tensor(encoded)
    generated = model.generate(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        max_new_tokens=new_tokens_max,
        do_sample=False,
        pad_token_id=tokenizer.eos_token_id,
    )
    answers = []
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    for prompt_ids, token_ids in zip(input_ids, generated):
        # Decoded together with the prompt, so that a leading space survives.
        read = tokenizer.decode(prompt_ids, **options)
        answers.append(tokenizer.decode(token_ids, **options)[len(read) :].partition("\n")[0])
    return answers


def evaluate(model, tokenizer, exercises: list[dict[str, str]], new_tokens_max: int) -> dict:
    started = time.monotonic()
    prompts = [exercise["prompt"] for exercise in exercises]
    answers = answer_all(model, tokenizer, prompts, new_tokens_max)
    results = [
        {**exercise, "answer": given, "correct": given == exercise["expected"]}
        for exercise, given in zip(exercises, answers)
    ]
    return {
        "results": results,
        "correct": sum(result["correct"] for result in results),
        "total": len(results),
        "seconds": round(time.monotonic() - started, 2),
    }


def main() -> None:
    arguments = parse_arguments()
    exercises = {path.stem: read_exercises(path, arguments.limit) for path in arguments.eval}
    started = time.monotonic()
    import torch

    torch.set_num_threads(min(THREADS_MAX, os.cpu_count() or 1))
    import transformers  # noqa: F401  (timed here, used in load)

    import_seconds = round(time.monotonic() - started, 2)
    candidates = arguments.candidate or [Candidate("model", arguments.model, arguments.adapter)]
    report: dict = {"candidates": {}, "import_seconds": import_seconds}
    with torch.inference_mode():
        for candidate in candidates:
            model, tokenizer = load(candidate)
            report["candidates"][candidate.name] = {
                stem: evaluate(model, tokenizer, each, arguments.max_new_tokens)
                for stem, each in exercises.items()
            }
            for stem, result in report["candidates"][candidate.name].items():
                score = f"{result['correct']}/{result['total']}"
                print(f"answers: {candidate.name} {stem}: {score}", file=sys.stderr)
    if arguments.model is not None:
        report = next(iter(report["candidates"]["model"].values()))
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    if arguments.json == "-":
        sys.stdout.write(text)
    else:
        Path(arguments.json).write_text(text)


if __name__ == "__main__":
    main()
