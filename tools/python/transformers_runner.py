"""Answers prompts with a transformers checkpoint: the far end of evaluation/runners/.

    python transformers_runner.py --model DIR [--adapter DIR] [--tokenizer DIR] [--device cpu|cuda]
                                  [--threads N]

Speaks JSON lines over standard input and output; everything else goes to standard error, whose last
line says why where the model cannot be loaded. The first line it writes is {"ready": true, ...}. Then
each request gets replies with its id, and last {"id", "done": true} or {"id", "error"}:

    {"id", "op": "answer", "requests": [{"index", "prompt", "addSpecialTokens", "newTokensMax"}]}
        -> {"id", "index", "text", "promptTokens"} for each, as soon as it is known
        -> {"id", "generated"} now and then: a sign of life
    {"id", "op": "distributions", "text", "addSpecialTokens", "positionsMax", "file"}
        -> {"id", "tokens", "from", "vocabulary"}; float32 logits [positions, vocabulary] are in `file`

The adapter is applied by PEFT without merging it. Nothing that comes with a model is executed, pickles
are not read as weights, and nothing is fetched from a network.
"""

import argparse
import json
import os
import re
import sys
import time
import traceback
from collections import defaultdict
from pathlib import Path
from typing import Any, Iterator

# Must be set before the imports. Nothing here may reach out to the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
# Threads that wait by spinning make a shared machine several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Prompts that go through the model together: what an interruption loses, and what fits into memory.
BATCH_PROMPTS_MAX = 8
BATCH_TOKENS_MAX = 8192
SIGN_OF_LIFE_SECONDS = 2.0
# What one request for distributions may write.
DISTRIBUTION_BYTES_MAX = 1 << 30


class RequestError(Exception):
    """What a person can understand without a traceback."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Answers prompts with a transformers checkpoint.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="where it is, if not beside the model")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


def say(text: str) -> None:
    """A line for the log, and a sign of life while a model loads."""
    print(text, file=sys.stderr, flush=True)


class Replies:
    """The real standard output, which no library's print may reach."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, message: dict[str, Any]) -> None:
        self._file.write(json.dumps(message, ensure_ascii=True) + "\n")
        self._file.flush()


def quantization_options(directory: Path, on_gpu: bool) -> dict[str, Any]:
    """What it takes to run formats whose own kernels need a GPU that may not be there."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    method = (config.get("quantization_config") or {}).get("quant_method")
    if on_gpu:
        return {}
    if method == "fp8":
        from transformers import FineGrainedFP8Config

        return {"quantization_config": FineGrainedFP8Config(dequantize=True)}
    if method == "mxfp4":
        from transformers import Mxfp4Config

        return {"quantization_config": Mxfp4Config(dequantize=True)}
    return {}


class Model:
    """A checkpoint, with or without an adapter, and its tokenizer."""

    def __init__(
        self, directory: Path, adapter: Path | None, tokenizer: Path, on_gpu: bool
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        local = {"local_files_only": True, "trust_remote_code": False}
        say(f"loading the tokenizer of {tokenizer}")
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer, **local)
        say(f"loading {directory}")
        # On a CPU only the arithmetic is float32; the values are the checkpoint's. Most CPUs do that
        # far faster than bfloat16, and differences between two models are not lost in its rounding.
        model = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            use_safetensors=True,
            **({"device_map": "auto"} if on_gpu else {}),
            **quantization_options(directory, on_gpu),
            **local,
        )
        stops = {self.tokenizer.eos_token_id}
        named = model.generation_config.eos_token_id
        stops.update(named if isinstance(named, list) else [named])
        self.stops = sorted(stop for stop in stops if stop is not None)
        pad = self.tokenizer.pad_token_id
        if pad is None:
            pad = self.stops[0] if self.stops else 0
        # Penalties and such of the checkpoint would make another text of the same distributions.
        model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=self.stops or None, pad_token_id=pad
        )
        if adapter is not None:
            model = with_adapter(model, adapter)
        self.model = model.eval()
        self.device = next(model.parameters()).device
        text_config = model.config.get_text_config()
        self.vocabulary: int = text_config.vocab_size
        self.context: int | None = getattr(text_config, "max_position_embeddings", None)

    def encode(self, text: str, add_special_tokens: bool, what: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        if not ids:
            raise RequestError(f"{what} is empty: it has no token for the model to go on from.")
        if self.context is not None and len(ids) > self.context:
            raise RequestError(
                f"{what} has {len(ids)} tokens, more than the {self.context} of the model's context."
            )
        return ids


def with_adapter(model: Any, directory: Path) -> Any:
    from peft import PeftModel
    from safetensors import safe_open

    say(f"loading the adapter {directory}")
    weights = directory / "adapter_model.safetensors"
    rows = model.get_input_embeddings().weight.shape[0]
    if weights.exists():
        with safe_open(weights, framework="pt") as file:
            # Adapters that were trained with tokens of their own bring the whole embedding along.
            given = [
                file.get_slice(name).get_shape()[0]
                for name in file.keys()
                if name.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight"))
            ]
        if given and given[0] != rows:
            model.resize_token_embeddings(given[0], mean_resizing=False)
    return PeftModel.from_pretrained(model, directory, is_trainable=False)


def batches(prompts: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Prompts of one length in tokens, a few at a time.

    That is several times faster than one by one, and unlike padding to one length it changes
    nothing that a prompt sees.
    """
    alike: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for prompt in prompts:
        alike[len(prompt["ids"]), prompt["newTokensMax"]].append(prompt)
    for (length, new_tokens_max), group in alike.items():
        size = max(1, min(BATCH_PROMPTS_MAX, BATCH_TOKENS_MAX // (length + new_tokens_max)))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def answer(model: Model, replies: Replies, message: dict[str, Any]) -> None:
    prompts = [
        {
            **request,
            "ids": model.encode(
                request["prompt"], request["addSpecialTokens"], f"prompt {request['index']}"
            ),
        }
        for request in message["requests"]
    ]
    for batch in batches(prompts):
        texts = generate(model, replies, message["id"], batch)
        for prompt, text in zip(batch, texts):
            reply = {"index": prompt["index"], "text": text, "promptTokens": len(prompt["ids"])}
            replies.send({"id": message["id"], **reply})


def generate(model: Model, replies: Replies, id: int, batch: list[dict[str, Any]]) -> list[str]:
    """The texts after the prompts, up to a token that ends them."""
    import torch
    from transformers import StoppingCriteriaList

    new_tokens_max = batch[0]["newTokensMax"]
    length = len(batch[0]["ids"])
    if model.context is not None:
        new_tokens_max = min(new_tokens_max, model.context - length)
    if new_tokens_max < 1:
        return ["" for _ in batch]
    input_ids = torch.tensor([prompt["ids"] for prompt in batch], device=model.device)
    last = time.monotonic()

    def report(token_ids: Any, scores: Any, **options: Any) -> Any:
        nonlocal last
        if time.monotonic() - last > SIGN_OF_LIFE_SECONDS:
            last = time.monotonic()
            replies.send({"id": id, "generated": token_ids.shape[1] - length})
        return torch.zeros(token_ids.shape[0], dtype=torch.bool, device=token_ids.device)

    generated = model.model.generate(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        max_new_tokens=new_tokens_max,
        stopping_criteria=StoppingCriteriaList([report]),
    )
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    texts = []
    for prompt, row in zip(batch, generated.tolist()):
        new = row[length:]
        end = next((at for at, token in enumerate(new) if token in model.stops), len(new))
        # Decoded together with the prompt, so that a leading space survives.
        read = model.tokenizer.decode(prompt["ids"], **options)
        texts.append(model.tokenizer.decode(prompt["ids"] + new[:end], **options)[len(read) :])
    return texts


def distributions(model: Model, replies: Replies, message: dict[str, Any]) -> None:
    import torch

    ids = model.encode(message["text"], message["addSpecialTokens"], "The text")
    positions = min(len(ids), message.get("positionsMax") or len(ids))
    if positions * model.vocabulary * 4 > DISTRIBUTION_BYTES_MAX:
        raise RequestError(
            f"The distributions of {positions} positions over {model.vocabulary} tokens are more than "
            f"{DISTRIBUTION_BYTES_MAX >> 20} MiB; ask for fewer positions."
        )
    input_ids = torch.tensor([ids], device=model.device)
    # Only the rows that are asked for: all of a long text would be gigabytes.
    logits = model.model(input_ids=input_ids, logits_to_keep=positions, use_cache=False).logits
    values = logits[0, -positions:].float().cpu().contiguous()
    if not torch.isfinite(values).all():
        raise RequestError("The model's logits are not finite: its weights are damaged.")
    with open(message["file"], "wb") as file:
        values.numpy().astype("<f4", copy=False).tofile(file)
    reply = {"tokens": ids, "from": len(ids) - positions, "vocabulary": values.shape[1]}
    replies.send({"id": message["id"], **reply})


OPERATIONS = {"answer": answer, "distributions": distributions}


def explain(error: Exception) -> str:
    """An error of a library in words that say what to do; with its traceback where there are none."""
    if isinstance(error, RequestError):
        return str(error)
    text = str(error).strip() or type(error).__name__
    if "trust_remote_code" in text:
        return (
            "The model needs program code of its own, which weldline never runs. Use a model whose "
            "architecture is part of transformers."
        )
    if re.search("out of memory|allocate memory", text, re.I) or isinstance(error, MemoryError):
        return f"There is not enough memory to run the model: {text}"
    if isinstance(error, ImportError):
        return f"The model needs a Python package that is not installed: {text}"
    traceback.print_exception(error)
    return f"{type(error).__name__}: {text}"


def serve(model: Model, replies: Replies) -> None:
    import torch

    for line in sys.stdin:
        message = json.loads(line)
        try:
            with torch.inference_mode():
                OPERATIONS[message["op"]](model, replies, message)
            replies.send({"id": message["id"], "done": True})
        except Exception as error:  # noqa: BLE001  (the next request may well succeed)
            replies.send({"id": message["id"], "error": explain(error)})


def main() -> int:
    arguments = parse_arguments()
    replies = Replies()
    try:
        say("importing torch and transformers")
        import torch
        import transformers

        if arguments.threads is not None:
            torch.set_num_threads(arguments.threads)
        tokenizer = arguments.tokenizer or arguments.model
        on_gpu = arguments.device == "cuda"
        model = Model(arguments.model, arguments.adapter, tokenizer, on_gpu)
    except Exception as error:  # noqa: BLE001  (whatever it was, the other end is told)
        say(explain(error))
        return 1
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    hello = {"device": model.device.type, "vocabulary": model.vocabulary, "context": model.context}
    replies.send({"ready": True, **hello, "versions": versions})
    serve(model, replies)
    return 0


if __name__ == "__main__":
    sys.exit(main())
