"""The texts of the example model: a small grammar, seeded, written for this purpose (CC0).

The base model reads plain lines: sentences, sums, records and what they contain. The
two adapters are taught a *format* on top of that knowledge, so that each one's effect is easy to
see: without its adapter the base never produces an answer in that format.
"""

import random
from dataclasses import dataclass
from itertools import product

NAMES = (
    "Anna Boris Clara Daniel Elena Felix Greta Hugo Irene Jonas Karin Leo Maria Niels Olga Pablo"
).split()
CITIES = (
    "Athens Bergen Cairo Dublin Essen Geneva Hanoi Jakarta Kyoto Lima Madrid Nairobi Oslo Porto"
    " Quito Riga"
).split()
COLOURS = "red blue green white black yellow brown silver".split()
THINGS = "apple book box cup key lamp map pen shoe stone".split()
VALUES = {"name": NAMES, "city": CITIES, "team": COLOURS, "item": THINGS}
DIGITS = range(10)
EVAL_COUNT = 20


@dataclass(frozen=True)
class Exercise:
    """A prompt and the exact text that has to follow it."""

    prompt: str
    expected: str


def make_record(rng: random.Random) -> dict[str, str]:
    fields = rng.sample(list(VALUES), rng.randint(2, 4))
    return {field: rng.choice(VALUES[field]) for field in fields}


def describe(record: dict[str, str]) -> str:
    return ", ".join(f"{field} {value}" for field, value in record.items())


def make_base_line(rng: random.Random) -> list[Exercise]:
    """A line of text in parts: what is only read, and what can be known from all before it."""
    kind = rng.random()
    if kind < 0.1:
        owner, city, item = rng.choice(NAMES), rng.choice(CITIES), rng.choice(THINGS)
        return [Exercise("", f"{owner} from {city} has a {rng.choice(COLOURS)} {item}.")]
    if kind < 0.2:
        # Brackets have to mean something to the base: an adapter cannot tell apart tokens whose
        # rows of lm_head were never trained, and would choose between them by a hair.
        tag, other = rng.choice(COLOURS), rng.choice(CITIES)
        code = rng.randint(0, 20)
        return [Exercise("", f"tags < {tag} > < {other} >; codes [{code}] [{rng.choice(DIGITS)}].")]
    if kind < 0.55:
        sums = [(rng.choice(DIGITS), rng.choice(DIGITS)) for _ in range(4)]
        pattern = "{} plus {} is" if rng.random() < 0.5 else "{}+{} ="
        parts = [Exercise(f" {pattern.format(a, b)}", f" {a + b}.") for a, b in sums]
        return [Exercise(parts[0].prompt.lstrip(), parts[0].expected), *parts[1:]]
    record = make_record(rng)
    asked = rng.sample(list(record), len(record))
    pattern = " The {} is" if rng.random() < 0.5 else " {}"
    answers = [Exercise(pattern.format(field), f" {record[field]}.") for field in asked]
    return [Exercise(f"{describe(record)}.", ""), *answers]


def text_of(line: list[Exercise]) -> str:
    return "".join(part.prompt + part.expected for part in line)


def make_base_lines(count: int, seed: int) -> list[list[Exercise]]:
    rng = random.Random(seed)
    return [make_base_line(rng) for _ in range(count)]


def make_calculator(seed: int) -> tuple[list[Exercise], list[Exercise]]:
    """Every sum of two digits once, split into (training, evaluation)."""
    pairs = list(product(DIGITS, repeat=2))
    random.Random(seed).shuffle(pairs)
    exercises = [Exercise(f"Q: {a}+{b} =", f" [{a + b}]") for a, b in pairs]
    return exercises[EVAL_COUNT:], exercises[:EVAL_COUNT]


def make_extractor(seed: int, count: int = 3000) -> tuple[list[Exercise], list[Exercise]]:
    """Distinct records with one field asked for, split into (training, evaluation)."""
    rng = random.Random(seed)
    exercises: dict[str, Exercise] = {}
    while len(exercises) < count:
        record = make_record(rng)
        field = rng.choice(list(record))
        prompt = f"{describe(record)}; get {field} ->"
        exercises[prompt] = Exercise(prompt, f" < {record[field]} >")
    distinct = list(exercises.values())
    return distinct[EVAL_COUNT:], distinct[:EVAL_COUNT]
