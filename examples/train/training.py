"""One training loop for the base model and the adapters: next-token prediction on the CPU."""

import math
import time
from dataclasses import dataclass

import torch

from corpus import Exercise, text_of

IGNORED = -100  # The label that transformers leaves out of the loss.
WARMUP_STEPS = 50
# Batches are cut from this many at a time, sorted by length: padding is time lost.
SORTED_BATCHES = 8


@dataclass(frozen=True)
class Sample:
    token_ids: list[int]
    # As long as token_ids; IGNORED where a token is read but not learned.
    labels: list[int]


@dataclass(frozen=True)
class Schedule:
    steps: int
    batch_size: int
    peak_learning_rate: float


def encode_line(tokenizer, line: list[Exercise]) -> Sample:
    """Only the expected parts are learned, and the end of the line after them.

    Asking a model to foresee the prompts, which are random, would drown what it can learn.
    """
    token_ids, labels = [tokenizer.bos_token_id], [IGNORED]
    for part in line:
        for text, is_learned in ((part.prompt, False), (part.expected, True)):
            ids = tokenizer(text, add_special_tokens=False).input_ids if text else []
            token_ids += ids
            labels += ids if is_learned else [IGNORED] * len(ids)
    text = text_of(line)
    assert token_ids == tokenizer(text).input_ids, f"cut into other tokens as a whole: {text!r}"
    end = [tokenizer.eos_token_id]
    return Sample(token_ids + end, labels + end)


def make_batch(samples: list[Sample], pad_token_id: int) -> dict[str, torch.Tensor]:
    length = max(len(sample.token_ids) for sample in samples)
    input_ids = torch.full((len(samples), length), pad_token_id)
    labels = torch.full((len(samples), length), IGNORED)
    attention_mask = torch.zeros((len(samples), length), dtype=torch.long)
    for row, sample in enumerate(samples):
        ids = torch.tensor(sample.token_ids)
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
        labels[row, : len(ids)] = torch.tensor(sample.labels)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def choose_batches(samples: list[Sample], schedule: Schedule, seed: int):
    """Yields `schedule.steps` batches, drawn with replacement."""
    generator = torch.Generator().manual_seed(seed)
    size = schedule.batch_size
    for step in range(schedule.steps):
        if step % SORTED_BATCHES == 0:
            drawn = torch.randint(len(samples), (SORTED_BATCHES * size,), generator=generator)
            chosen = sorted(
                (samples[index] for index in drawn.tolist()), key=lambda each: len(each.token_ids)
            )
            order = torch.randperm(SORTED_BATCHES, generator=generator).tolist()
        start = order[step % SORTED_BATCHES] * size
        yield chosen[start : start + size]


def train(model, samples: list[Sample], schedule: Schedule, pad_token_id: int, seed: int) -> None:
    """Trains the parameters that require gradients, in place."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1.0, betas=(0.9, 0.95), weight_decay=0.01)
    started, mean_loss = time.monotonic(), None
    model.train()
    for step, chosen in enumerate(choose_batches(samples, schedule, seed)):
        batch = make_batch(chosen, pad_token_id)
        for group in optimizer.param_groups:
            group["lr"] = schedule.peak_learning_rate * rate_at(step, schedule.steps)
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean_loss = loss.item() if mean_loss is None else 0.95 * mean_loss + 0.05 * loss.item()
        if (step + 1) % 100 == 0:
            seconds = time.monotonic() - started
            print(f"  step {step + 1}/{schedule.steps}: loss {mean_loss:.3f}, {seconds:.0f} s")
    model.eval()


def rate_at(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
