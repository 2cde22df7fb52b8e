"""Runs a converter of llama.cpp as it is, but for what weldline promises.

    python run_converter.py [--inspect] CONVERTER_DIRECTORY SCRIPT [ARGUMENT ...]

- No code that comes with a model is executed: the converters ask transformers for it where a
  tokenizer has some, and are refused.
- With --inspect nothing is written: the last line of standard output is a JSON object with what the
  file would hold, or with the error that stands in the way.
"""

from __future__ import annotations

import json
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any


def refuse_code_of_models() -> None:
    from transformers import AutoConfig, AutoTokenizer

    for auto in (AutoConfig, AutoTokenizer):
        original = auto.from_pretrained

        def from_pretrained(*args: Any, _original: Any = original, **settings: Any) -> Any:
            return _original(*args, **{**settings, "trust_remote_code": False})

        auto.from_pretrained = from_pretrained


def describe(model: Any) -> dict[str, Any]:
    """What the file would hold; shapes are [rows, columns], as in the checkpoint."""
    writer = model.gguf_writer
    tensors = {name: list(info.shape) for part in writer.tensors for name, info in part.items()}
    values = {key: value.value for part in writer.kv_data for key, value in part.items()}
    return {
        "architecture": values.get("general.architecture"),
        "tokens": len(values.get("tokenizer.ggml.tokens", [])),
        "tensors": tensors,
    }


def inspect(script: Path) -> dict[str, Any]:
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    hparams = ModelBase.load_hparams(Path(sys.argv[1]), False)
    try:
        architecture = get_model_architecture(hparams, ModelType.TEXT)
        get_model_class(architecture)
    except NotImplementedError as error:
        return {"error": "architecture", "message": str(error)}

    found: dict[str, Any] = {}

    def write(model: Any) -> None:
        model.prepare_tensors()
        try:
            model.prepare_metadata(vocab_only=False)
        except Exception as error:
            found.update(error="tokenizer", message=f"{type(error).__name__}: {error}")
            return
        found.update(describe(model))

    ModelBase.write = write
    try:
        runpy.run_path(str(script), run_name="__main__")
    except Exception as error:
        return {"error": "model", "message": f"{type(error).__name__}: {error}"}
    return found


def main() -> None:
    arguments = sys.argv[1:]
    is_inspection = arguments[0] == "--inspect"
    directory, name, *rest = arguments[1:] if is_inspection else arguments
    sys.path[0:1] = [directory, str(Path(directory) / "gguf-py")]
    refuse_code_of_models()
    script = Path(directory) / name
    sys.argv = [str(script), *rest]
    if is_inspection:
        print(json.dumps(inspect(script)))
        return
    try:
        runpy.run_path(str(script), run_name="__main__")
    except Exception as error:
        # The last lines of a program are shown to people, who have no use for a traceback.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        sys.exit(f"{type(error).__name__}: {error} ({place})")


if __name__ == "__main__":
    main()
