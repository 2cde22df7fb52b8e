"""What tests want of one process, because importing torch and transformers takes the longest.

    python integer_tasks.py TASKS

TASKS is a JSON file {quantize: [SETTINGS of quantize.py, ...], refuse: [SETTINGS, ...], read:
[SETTINGS, ...], candidates: {NAME: DIRECTORY}, eval: FILE, layer: NAME, out: FILE}. Writes {refused:
[the refusal], read: [[text of a sample, ...] or the refusal], answers: {NAME: number of exact answers},
layer: {NAME: [first values of that weight]}}.
"""

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tools" / "python"), str(ROOT / "oracle")]

import answers  # noqa: E402
import quantize  # noqa: E402


def main() -> None:
    tasks = json.loads(Path(sys.argv[1]).read_text())
    import torch
    from transformers import AutoTokenizer

    progress = quantize.Progress()
    result: dict = {"read": [], "refused": [], "answers": {}, "layer": {}}
    for settings in tasks["quantize"]:
        quantize.quantize(settings, progress)
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            shutil.copy(Path(settings["model"]) / name, settings["output"])
    for settings in tasks["refuse"]:
        try:
            quantize.quantize(settings, progress)
        except quantize.Refused as refusal:
            result["refused"].append(f"{refusal.kind}: {refusal}")
    for settings in tasks["read"]:
        tokenizer = AutoTokenizer.from_pretrained(settings["model"])
        try:
            samples = quantize.read_samples(settings, tokenizer)
            result["read"].append([tokenizer.decode(each) for each in samples])
        except quantize.Refused as refusal:
            result["read"].append(f"{refusal.kind}: {refusal}")
    exercises = answers.read_exercises(Path(tasks["eval"]), None)
    for name, directory in tasks["candidates"].items():
        candidate = answers.Candidate(name, Path(directory), None)
        with torch.inference_mode():
            model, tokenizer = answers.load(candidate)
            result["answers"][name] = answers.evaluate(model, tokenizer, exercises, 12)["correct"]
        weight = model.get_submodule(tasks["layer"]).weight
        result["layer"][name] = weight.float().flatten()[:1000].tolist()
    Path(tasks["out"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
