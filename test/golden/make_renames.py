"""Writes the names that transformers gives to tensors of running models and on disk.

    .oracle/bin/python test/golden/make_renames.py

formats/renames.json: by model type, the layouts that its checkpoints have on disk, each a mapping
from the name in the running model (which PEFT saves) to the name on disk. Of each model the linear
layers of the first layer of each part. Both ways of transformers to undo its renames are there:
with the prefixes it only drops as it loads (`vision_tower.vision_model.`), and without.
"""

import json
import re
import warnings
from pathlib import Path

import torch
import transformers
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange, WeightRenaming, revert_weight_conversion

FOLDER = Path(__file__).resolve().parent / "formats"
MODELS = [
    "LlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration",
    "LlavaOnevisionForConditionalGeneration",
    "VipLlavaForConditionalGeneration",
    "PaliGemmaForConditionalGeneration",
    "Gemma3ForConditionalGeneration",
    "Mistral3ForConditionalGeneration",
    "InternVLForConditionalGeneration",
    "GotOcr2ForConditionalGeneration",
    "MllamaForConditionalGeneration",
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
    "Qwen2AudioForConditionalGeneration",
    "MixtralForCausalLM",
    "GPTNeoXForCausalLM",
]
LINEAR = re.compile(r"(q_proj|v_proj|qkv|query_key_value|linear_1|fc1|lm_head|mlp\.gate)\.weight$")
LATER = re.compile(r"\.(?!0\.)\d+\.")


def names_on_disk(model, names: list[str], conversions: list) -> dict[str, str]:
    # Experts are stacked, which is no rename; a pattern of theirs fits no other name.
    model._weight_conversions = [each for each in conversions if isinstance(each, WeightRenaming)]
    on_disk = {}
    for name in names:
        (on_disk[name],) = revert_weight_conversion(model, {name: torch.empty(0, device="meta")})
    return on_disk


def layouts_of(class_name: str) -> list[dict[str, str]]:
    model_class = getattr(transformers, class_name)
    with torch.device("meta"):
        model = model_class(model_class.config_class())
    names = [
        name
        for name, tensor in model.state_dict().items()
        if LINEAR.search(name) and not LATER.search(name) and tensor.ndim == 2
    ]
    conversions = get_model_conversion_mapping(model, add_legacy=False)
    without = [each for each in conversions if not isinstance(each, PrefixChange)]
    layouts = []
    for chosen in (conversions, without):
        layout = names_on_disk(model, names, chosen)
        if layout not in layouts:
            layouts.append(layout)
    return layouts


def main() -> None:
    warnings.simplefilter("ignore")
    found = {name: layouts_of(name) for name in MODELS}
    (FOLDER / "renames.json").write_text(json.dumps(found, indent=1) + "\n")
    for name, layouts in found.items():
        print(name, [len(layout) for layout in layouts], list(layouts[0].items())[:2])


if __name__ == "__main__":
    main()
