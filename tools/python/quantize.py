"""Quantises a checkpoint to integers with llm-compressor, in the compressed-tensors format.

    python quantize.py SETTINGS

SETTINGS is a JSON file:

    {model, output, method: "awq"|"gptq", bits, groupSize, symmetric, ignore: [NAME or "re:PATTERN"],
     samples: FILE, samplesMax, sequenceLength, threads, scales: FILE}

`samples` has one JSON object per line: {line, text}, {line, messages}, or {line, stretch} for a long
text that is cut into stretches of `sequenceLength` tokens; `line` is where it came from. Writes
`output` (weights and config.json) and, for AWQ, `scales`: see `ScaleRecord`.

Standard output has one JSON object per line: {stage, layer?, layers?} as it goes on, then {done: true,
samples, tokens, device}, or {error: "calibration"|"architecture", message}; any other error ends with
a traceback on standard error. Nothing here reaches out to the network, and no code of the checkpoint
is run.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, TextIO

# Before the imports: they read these.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TQDM_DISABLE"] = "1"
# Threads that wait by spinning make a shared machine several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Prompts are short, and one call for each costs more than its arithmetic. Only samples of one length
# share a batch: padding would be counted among the activations.
BATCH_TOKENS_MAX = 2048
# Often enough to tell a slow layer from one that hangs.
ALIVE_SECONDS = 5.0


OF_THE_MACHINE = re.compile(r"No space left|out of memory|can't allocate memory|MemoryError", re.I)


class Refused(Exception):
    """An error of the inputs, with the kind that weldline tells apart."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Progress:
    """Writes events to what was standard output; whatever libraries print goes to standard error."""

    def __init__(self) -> None:
        self._stream: TextIO = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._event: dict[str, Any] = {}
        self._last = 0.0

    def tell(self, **event: Any) -> None:
        self._event = event
        self._last = time.monotonic()
        print(json.dumps(event), file=self._stream, flush=True)

    def alive(self, *_: Any) -> None:
        """Says the last thing again, from work that is being done and not from a timer."""
        if time.monotonic() - self._last > ALIVE_SECONDS:
            self.tell(**self._event)


class ScaleRecord:
    """What AWQ multiplied weights with: without it nobody could tell what was quantised.

    AWQ divides the outputs of one module (a norm, or a linear layer) by scales and multiplies the
    columns of the layers that read them. The file of safetensors has one tensor `scales.<i>` for each
    such step, in order, float32 [width], and metadata `steps`: JSON of [{from, to: [...], offset}].
    `offset` is 1 for norms that multiply with 1 + weight.
    """

    def __init__(self) -> None:
        self._steps: list[dict[str, Any]] = []
        self._scales: dict[str, Any] = {}
        self.scaled: set[str] = set()

    def add(self, mapping: Any, scales: Any) -> None:
        from llmcompressor.modeling.offset_norm import NormCalibrationModule

        self._scales[f"scales.{len(self._steps)}"] = scales.detach().float().cpu().contiguous()
        self.scaled.add(mapping.smooth_name)
        is_offset = isinstance(mapping.smooth_layer, NormCalibrationModule)
        self._steps.append(
            {"from": mapping.smooth_name, "to": mapping.balance_names, "offset": int(is_offset)}
        )

    def save(self, path: Path) -> None:
        from safetensors.torch import save_file

        save_file(self._scales, path, metadata={"steps": json.dumps(self._steps)})


def main() -> None:
    progress = Progress()
    try:
        settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        progress.tell(stage="loading")
        quantize(settings, progress)
    except Refused as refusal:
        progress.tell(error=refusal.kind, message=str(refusal))
        sys.exit(1)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if not OF_THE_MACHINE.search(text):
            raise
        # weldline says what to do, and a traceback would only hide it.
        sys.exit(text)


def quantize(settings: dict[str, Any], progress: Progress) -> None:
    import torch
    import transformers
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache

    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True, warn_only=True)
    if settings.get("threads"):
        torch.set_num_threads(settings["threads"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.accelerator.is_available():
        # Pages are pinned for copies to a GPU, and without one torch refuses to.
        IntermediatesCache.pin_memory = lambda *_args, **_options: None

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            settings["model"], dtype="auto", **local
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(settings["model"], **local)
    except (ValueError, KeyError, OSError) as error:
        raise Refused("architecture", str(error)) from error
    model.eval()
    batches = make_batches(settings, tokenizer)

    layers = model.config.get_text_config().num_hidden_layers
    progress.tell(stage="calibrating", layer=0, layers=layers)
    torch.nn.modules.module.register_module_forward_hook(progress.alive)
    record = ScaleRecord()
    vectors = {name: value.clone() for name, value in model.named_parameters() if value.ndim == 1}
    oneshot(
        model=model,
        processor=tokenizer,
        dataset=torch.utils.data.DataLoader(batches, batch_size=None, shuffle=False),
        recipe=make_recipe(settings, record, progress, layers),
        pipeline="sequential",
    )

    progress.tell(stage="saving")
    restore(model, vectors, record)
    output = Path(settings["output"])
    # weldline copies the checkpoint's own; one that transformers finds fault with must not stop this.
    model.generation_config = transformers.GenerationConfig()
    model.save_pretrained(output, save_compressed=True)
    if settings["method"] == "awq":
        record.save(Path(settings["scales"]))
    count = sum(batch["input_ids"].shape[0] for batch in batches)
    tokens = sum(batch["input_ids"].numel() for batch in batches)
    progress.tell(done=True, samples=count, tokens=tokens, device=device)


def restore(model: Any, vectors: dict[str, Any], record: ScaleRecord) -> None:
    """Gives vectors that AWQ did not scale their values again.

    llm-compressor adds 1 to the norms of Gemma and its like and takes it off again, in 16 bits, which
    rounds them all.
    """
    from compressed_tensors.utils import update_offload_parameter

    for path, value in vectors.items():
        module, _, name = path.rpartition(".")
        if module not in record.scaled:
            update_offload_parameter(model.get_submodule(module), name, value)


def make_recipe(
    settings: dict[str, Any], record: ScaleRecord, progress: Progress, layers: int
) -> list[Any]:
    from llmcompressor.modifiers import Modifier
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    class Recorder(AWQModifier):
        def _compute_best_scale(self, mapping: Any, *arguments: Any) -> Any:
            scales = super()._compute_best_scale(mapping, *arguments)
            record.add(mapping, scales)
            progress.alive()
            return scales

    class Reporter(Modifier):
        _layer: int = 0

        def on_initialize(self, state: Any, **options: Any) -> bool:
            return True

        def on_sequential_epoch_end(self, state: Any, event: Any, **options: Any) -> None:
            # The last part is the head, which follows the layers.
            self._layer = min(self._layer + 1, layers)
            progress.tell(stage="calibrating", layer=self._layer, layers=layers)

    weights = {
        "num_bits": settings["bits"],
        "type": "int",
        "symmetric": settings["symmetric"],
        "strategy": "group",
        "group_size": settings["groupSize"],
    }
    scheme: dict[str, Any] = {
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": settings["ignore"],
    }
    if settings["method"] == "gptq":
        return [GPTQModifier(**scheme), Reporter()]
    return [Recorder(), QuantizationModifier(**scheme), Reporter()]


def make_batches(settings: dict[str, Any], tokenizer: Any) -> list[dict[str, Any]]:
    """Samples as token ids, those of one length together: input_ids and attention_mask [n, length]."""
    import torch

    samples = read_samples(settings, tokenizer)
    by_length: dict[int, list[list[int]]] = defaultdict(list)
    for token_ids in samples:
        by_length[len(token_ids)].append(token_ids)
    batches = []
    for length in sorted(by_length, reverse=True):
        step = max(1, BATCH_TOKENS_MAX // length)
        for first in range(0, len(by_length[length]), step):
            input_ids = torch.tensor(by_length[length][first : first + step])
            batches.append({"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)})
    return batches


def read_samples(settings: dict[str, Any], tokenizer: Any) -> list[list[int]]:
    length = settings["sequenceLength"]
    samples: list[list[int]] = []
    with open(settings["samples"], encoding="utf-8") as lines:
        for line in lines:
            sample = json.loads(line)
            if "stretch" in sample:
                samples.extend(cut(sample["stretch"], length, tokenizer))
            elif "messages" in sample:
                text = render(sample, tokenizer)
                samples.append(tokenizer(text, add_special_tokens=False)["input_ids"][:length])
            else:
                samples.append(tokenizer(sample["text"])["input_ids"][:length])
    samples = spread([sample for sample in samples if sample], settings["samplesMax"])
    if not samples:
        raise Refused("calibration", "none of the samples has a token")
    return samples


def spread(samples: list[list[int]], count_max: int) -> list[list[int]]:
    """Evenly over all of them: files are often sorted, so the first are not like the rest."""
    count = min(len(samples), count_max)
    return [samples[index * len(samples) // count] for index in range(count)]


def render(sample: dict[str, Any], tokenizer: Any) -> str:
    try:
        return tokenizer.apply_chat_template(sample["messages"], tokenize=False)
    except Exception as error:  # Templates are programs, and refuse in their own ways.
        reason = f"line {sample['line']}: the chat template refuses these messages: {error}"
        raise Refused("calibration", reason) from error


def cut(text: str, length: int, tokenizer: Any) -> list[list[int]]:
    """Stretches of a text, each begun as the tokenizer begins a text."""
    token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token_id
    start = [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []
    step = length - len(start)
    return [start + token_ids[at : at + step] for at in range(0, len(token_ids), step)]


if __name__ == "__main__":
    main()
