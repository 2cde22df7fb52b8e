"""Imports all that weldline uses, and prints versions as JSON: whether they work on this machine."""

import importlib.metadata
import json

import accelerate  # noqa: F401
import bitsandbytes  # noqa: F401
import compressed_tensors  # noqa: F401
import google.protobuf  # noqa: F401
import peft  # noqa: F401
import sentencepiece  # noqa: F401
import torch
from llmcompressor import oneshot  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401

# torch loads without its libraries for CUDA, but does it calculate?
assert float((torch.ones(2, 2) @ torch.ones(2, 2)).sum()) == 8.0
names = ("torch", "transformers", "peft", "llmcompressor", "compressed-tensors")
print(json.dumps({name: importlib.metadata.version(name) for name in names}))
