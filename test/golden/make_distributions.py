"""Writes distributions.json: rows of logits, and how far apart torch finds them, in float64.

    .oracle/bin/python test/golden/make_distributions.py
"""

import json
from pathlib import Path

import torch

OUTPUT = Path(__file__).parent / "distributions.json"

# Name, scale of the logits, scale of the noise between the two.
CASES = [("close", 3.0, 0.01), ("far", 3.0, 4.0), ("peaked", 60.0, 50.0), ("rounded", 8.0, 0.0)]
POSITIONS = 6
VOCABULARY = 31


def compare(reference: torch.Tensor, candidate: torch.Tensor) -> dict[str, float]:
    ours, theirs = (torch.log_softmax(rows.double(), -1) for rows in (reference, candidate))
    kl = torch.nn.functional.kl_div(theirs, ours, log_target=True, reduction="none").sum(-1)
    return {
        "klMean": kl.mean().item(),
        "klMax": kl.max().item(),
        "logitDifferenceMax": (reference.double() - candidate.double()).abs().max().item(),
        "logProbabilityDifferenceMax": (ours - theirs).abs().max().item(),
        "top1Agreement": (ours.argmax(-1) == theirs.argmax(-1)).double().mean().item(),
    }


def main() -> None:
    generator = torch.Generator().manual_seed(7)
    cases = []
    for name, scale, noise in CASES:
        shape = (POSITIONS, VOCABULARY)
        reference = torch.randn(shape, generator=generator) * scale
        candidate = reference + torch.randn(shape, generator=generator) * noise
        if name == "rounded":
            candidate = reference.bfloat16().float()
        rows = {"reference": reference.flatten().tolist(), "candidate": candidate.flatten().tolist()}
        cases.append({"name": name, **rows, "expected": compare(reference, candidate)})
    document = {"torch": torch.__version__, "vocabulary": VOCABULARY, "cases": cases}
    OUTPUT.write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
