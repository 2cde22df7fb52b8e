"""The golden cases: which base, which adapter, and why the case exists.

Every case names one way in which merged weights come out wrong without an error. To add one,
append it here and run make_golden.py; existing cases keep their bytes because each has its own
seed.
"""

from dataclasses import dataclass, field

ALL_LINEAR = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
)  # fmt: skip
# Of a delta to its weight, in Frobenius norms. In the two adapters of test/fixtures/smollm2 on
# their base (420 matrices) the median is 0.0061, nine tenths lie between 0.0038 and 0.0087, the
# smallest is 0.0025 and the largest 0.033.
DELTA_RATIO = 0.006
BFLOAT16, FLOAT16, FLOAT32 = "bfloat16", "float16", "float32"
SHORT = {BFLOAT16: "bf16", FLOAT16: "fp16", FLOAT32: "fp32"}


@dataclass(frozen=True)
class Case:
    name: str
    seed: int
    description: str
    base_dtypes: tuple[str, ...] = (BFLOAT16,)
    architecture: str = "llama"
    tied: bool = False
    # The base is saved in three shards with an index.
    sharded: bool = False
    # Norms are float32 on disk, with values that no narrower type can hold.
    float32_norms: bool = False
    # The dtype the adapter is converted to after PEFT saved it in float32.
    adapter_dtype: str = FLOAT32
    # The side of a tied pair that the LoRA is on: merged into it alone, the other side kept.
    untie: str | None = None
    # Rows that the embeddings are resized to before training; None keeps the base's.
    vocabulary: int | None = None
    delta_ratio: float = DELTA_RATIO
    lora: dict = field(default_factory=lambda: {"r": 4, "lora_alpha": 8})
    target_modules: tuple[str, ...] = ALL_LINEAR
    modules_to_save: tuple[str, ...] = ()


CASES = (
    Case(
        "plain", 11,
        "LoRA on all linear layers of an untied model.",
        (BFLOAT16, FLOAT16, FLOAT32),
        lora={"r": 8, "lora_alpha": 16},
    ),
    Case(
        "rslora", 12,
        "use_rslora: the scaling is alpha / sqrt(r), here 8 times alpha / r.",
        (BFLOAT16, FLOAT16),
        lora={"r": 64, "lora_alpha": 16, "use_rslora": True},
        target_modules=("q_proj", "o_proj"),
    ),
    Case(
        "patterns", 13,
        "rank_pattern and alpha_pattern with different keys, looked up separately. A key matches"
        r" as `(.*\.)?(KEY)$` and the first match in the file's order wins: 'proj' matches nothing,"
        " one key is a regular expression, and 'layers.1.self_attn.v_proj' goes before"
        " 'self_attn.v_proj', because PEFT sorts the keys when it saves (and so, here, applies"
        " another scaling after loading than it trained with).",
        (BFLOAT16, FLOAT16),
        lora={
            "r": 4,
            "lora_alpha": 8,
            "rank_pattern": {"layers.0.self_attn.q_proj": 8, "down_proj": 2, "proj": 16},
            "alpha_pattern": {
                "q_proj": 32,
                "self_attn.v_proj": 12,
                "layers.1.self_attn.v_proj": 20,
                r"layers\.1\.mlp\.(gate|up)_proj": 6,
                "proj": 100,
            },
        },
    ),
    Case(
        "fan_in_fan_out", 14,
        "GPT-2, whose Conv1D weights are [in, out]: the delta is transposed. One of them is"
        " square, so that a wrong orientation is not caught by its shape.",
        (BFLOAT16, FLOAT16, FLOAT32),
        architecture="gpt2",
        tied=True,
        lora={"r": 4, "lora_alpha": 8, "fan_in_fan_out": True},
        target_modules=("c_attn", "c_proj", "c_fc"),
    ),
    Case(
        "modules_to_save", 15,
        "lm_head and the final norm were trained in full: they replace the base's tensors.",
        (BFLOAT16, FLOAT16, FLOAT32),
        modules_to_save=("lm_head", "model.norm"),
    ),
    Case(
        "modules_to_save_tied", 16,
        "embed_tokens and lm_head of a tied model were both trained in full and differ: both are"
        " written and the model is no longer tied.",
        (BFLOAT16, FLOAT16),
        tied=True,
        modules_to_save=("embed_tokens", "lm_head"),
    ),
    Case(
        "modules_to_save_as_one", 43,
        "The embeddings of a tied model were trained in full with ensure_weight_tying: the adapter"
        " has both ends, which are equal, and the model stays tied.",
        tied=True,
        lora={"r": 4, "lora_alpha": 8, "ensure_weight_tying": True},
        modules_to_save=("embed_tokens",),
        target_modules=("q_proj",),
    ),
    Case(
        "tied", 17,
        "LoRA on the linear layers of a tied model: lm_head is on disk neither before nor after.",
        (BFLOAT16, FLOAT16, FLOAT32),
        tied=True,
    ),
    Case(
        "lora_lm_head_tied", 18,
        "LoRA on lm_head of a tied model. PEFT would add the delta to the shared tensor and so"
        " change the input embedding too; expected here is lm_head = embedding + delta, the"
        " embedding as it was, and the model no longer tied.",
        (BFLOAT16, FLOAT16),
        tied=True,
        untie="lm_head",
        target_modules=("q_proj", "lm_head"),
    ),
    Case(
        "lora_lm_head", 19,
        "LoRA on lm_head of an untied model; PEFT stores a full copy of the base's lm_head in"
        " the adapter, which is the base's weight and no update.",
        (BFLOAT16, FLOAT16),
        target_modules=("q_proj", "lm_head"),
    ),
    Case(
        "adapter_bf16", 20,
        "The adapter is stored in bfloat16 and computed with in float32.",
        adapter_dtype=BFLOAT16,
    ),
    Case(
        "adapter_fp16", 21,
        "The adapter is stored in float16 and computed with in float32.",
        adapter_dtype=FLOAT16,
    ),
    Case(
        "sharded", 22,
        "The base is split into three shards with an index.",
        sharded=True,
    ),
    Case(
        "mixed_dtype", 23,
        "Norms are float32 beside bfloat16 linear layers: each tensor keeps its own dtype.",
        float32_norms=True,
    ),
    Case(
        "large_delta", 24,
        "Deltas as large as their weights, as no trained adapter has them: the float32 sums of"
        " PEFT and of another order then reach different sides of a rounding boundary more often.",
        (BFLOAT16, FLOAT16),
        delta_ratio=1.0,
        lora={"r": 16, "lora_alpha": 16},
    ),
    Case(
        "embedding", 25,
        "LoRA on the embedding of an untied model: A is [r, vocabulary] and B [hidden, r], so the"
        " delta is added transposed. PEFT rounds the delta to the weight's dtype before it adds it,"
        " as it does for no other layer; expected is one rounding of the sum, as everywhere.",
        (BFLOAT16, FLOAT16, FLOAT32),
        target_modules=("embed_tokens", "q_proj"),
    ),
    Case(
        "embedding_rslora", 26,
        "Rank-stabilised LoRA on the embedding, and on the head.",
        lora={"r": 16, "lora_alpha": 16, "use_rslora": True},
        target_modules=("embed_tokens", "lm_head"),
    ),
    Case(
        "embedding_tied", 27,
        "LoRA on the embedding of a tied model. PEFT trains with the head as it was but merges"
        " into the shared tensor; expected is what was trained: the embedding changed, the head as"
        " it was, and the model no longer tied.",
        tied=True,
        untie="embed_tokens",
        target_modules=("embed_tokens", "q_proj"),
    ),
    Case(
        "bias_all", 28,
        "bias: all. Every bias was trained and replaces the base's, those of norms too.",
        architecture="gpt2",
        tied=True,
        lora={"r": 4, "lora_alpha": 8, "fan_in_fan_out": True, "bias": "all"},
        target_modules=("c_attn", "c_fc"),
    ),
    Case(
        "bias_lora_only", 29,
        "bias: lora_only. The biases of the targeted layers were trained and replace the base's.",
        architecture="gpt2",
        tied=True,
        lora={"r": 4, "lora_alpha": 8, "fan_in_fan_out": True, "bias": "lora_only"},
        target_modules=("c_attn", "c_fc"),
    ),
    Case(
        "lora_bias", 30,
        "lora_bias: B has a bias of its own, which is added to the base's with the scaling.",
        (BFLOAT16, FLOAT16, FLOAT32),
        architecture="gpt2",
        tied=True,
        lora={"r": 4, "lora_alpha": 12, "fan_in_fan_out": True, "lora_bias": True},
        target_modules=("c_attn", "c_proj", "c_fc"),
    ),
    Case(
        "tokens", 31,
        "trainable_token_indices: rows of the embedding replace the base's; the head, which is not"
        " tied, keeps its own.",
        lora={"r": 4, "lora_alpha": 8, "trainable_token_indices": [99, 3, 40]},
        target_modules=("q_proj",),
    ),
    Case(
        "tokens_tied", 32,
        "trainable_token_indices of a tied model: the shared tensor changes, and both sides with"
        " it, as PEFT trains them.",
        tied=True,
        lora={"r": 4, "lora_alpha": 8, "trainable_token_indices": [98, 99]},
        target_modules=("q_proj",),
    ),
    Case(
        "tokens_both", 33,
        "trainable_token_indices by module: other rows of the embedding than of the head.",
        lora={
            "r": 4,
            "lora_alpha": 8,
            "trainable_token_indices": {"embed_tokens": [0, 98], "lm_head": [97, 5, 1]},
        },
        target_modules=("q_proj",),
    ),
    Case(
        "vocabulary_grown", 34,
        "Three tokens were added before training: the adapter has all rows of both ends.",
        vocabulary=103,
        target_modules=("q_proj",),
    ),
    Case(
        "vocabulary_grown_trained", 35,
        "Three tokens were added, and both ends trained in full.",
        vocabulary=103,
        target_modules=("q_proj",),
        modules_to_save=("embed_tokens", "lm_head"),
    ),
    Case(
        "vocabulary_grown_lora", 36,
        "Three tokens were added, and both ends trained by LoRA: the adapter has their weights"
        " before training, under base_layer.",
        vocabulary=103,
        target_modules=("embed_tokens", "lm_head", "q_proj"),
    ),
    Case(
        "vocabulary_grown_tied", 37,
        "Three tokens were added to a tied model: the adapter has both ends, which are equal, and the"
        " model stays tied.",
        tied=True,
        vocabulary=103,
        target_modules=("q_proj",),
    ),
    Case(
        "vocabulary_grown_tokens", 38,
        "Three tokens were added, and their rows trained by trainable_token_indices.",
        vocabulary=103,
        lora={"r": 4, "lora_alpha": 8, "trainable_token_indices": [100, 101, 102]},
        target_modules=("q_proj",),
    ),
    Case(
        "vocabulary_grown_tokens_tied", 42,
        "Three tokens were added to a tied model, and their rows trained on both ends as one.",
        tied=True,
        vocabulary=103,
        lora={"r": 4, "lora_alpha": 8, "trainable_token_indices": [100, 101, 102]},
        target_modules=("q_proj",),
    ),
    Case(
        "vocabulary_shrunk", 39,
        "The padding of the vocabulary was cut off before training.",
        vocabulary=96,
        target_modules=("q_proj",),
    ),
    Case(
        "dora", 40,
        "DoRA on all linear layers: every row of W + s·BA is scaled to a trained length.",
        (BFLOAT16, FLOAT16, FLOAT32),
        lora={"r": 4, "lora_alpha": 8, "use_dora": True},
    ),
)  # fmt: skip
