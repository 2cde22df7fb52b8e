"""The golden cases of adapters beside plain LoRA: which base, which configuration, and why."""

from dataclasses import dataclass, field

from peft import AdaLoraConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, VeraConfig

LLAMA_TARGETS = ["q_proj", "k_proj", "down_proj"]
GPT2_TARGETS = ["c_attn", "c_proj"]
DORA = {"r": 3, "lora_alpha": 6, "use_dora": True}


@dataclass(frozen=True)
class Case:
    name: str
    seed: int
    config: type
    options: dict = field(default_factory=dict)
    architecture: str = "llama"
    targets: list = field(default_factory=lambda: LLAMA_TARGETS)
    # A second adapter, merged after the first.
    second: dict | None = None
    dtypes: tuple = ("bfloat16", "float32")


ADALORA = {"init_r": 4, "target_r": 2, "lora_alpha": 16, "total_step": 10, "tfinal": 1}

CASES = (
    # Ranks were cut: of one module to three, of one to nothing. The scaling stays that of init_r.
    Case("adalora", 201, AdaLoraConfig, ADALORA | {
        "rank_pattern": {
            "model.layers.0.self_attn.q_proj.lora_E": [True, False, True, True],
            "model.layers.0.self_attn.k_proj.lora_E": [False] * 4,
            "model.layers.0.mlp.down_proj.lora_E": [True] * 4,
        },
    }),
    Case("adalora_conv1d", 202, AdaLoraConfig, ADALORA | {"fan_in_fan_out": True},
         "gpt2", GPT2_TARGETS),
    Case("vera", 203, VeraConfig, {"r": 6}),
    Case("vera_conv1d", 204, VeraConfig, {"r": 6, "fan_in_fan_out": True, "bias": "vera_only"},
         "gpt2", GPT2_TARGETS),
    Case("loha", 205, LoHaConfig, {
        "r": 3, "alpha": 6, "rank_pattern": {"down_proj": 5}, "alpha_pattern": {"q_proj": 9},
        "modules_to_save": ["lm_head"],
    }),
    # w1 whole and w2 in factors; w1 and w2 in factors; both whole.
    Case("lokr", 206, LoKrConfig, {"r": 2, "alpha": 4}),
    Case("lokr_both", 207, LoKrConfig, {"r": 1, "alpha": 3, "decompose_both": True}),
    Case("lokr_whole", 208, LoKrConfig, {"r": 16, "alpha": 8, "decompose_factor": 4}),
    Case("ia3", 209, IA3Config, {"feedforward_modules": ["down_proj"]}),
    # The layers have biases, which are scaled too.
    Case("ia3_conv1d", 210, IA3Config,
         {"feedforward_modules": ["mlp.c_proj"], "fan_in_fan_out": True},
         "gpt2", ["c_attn", "attn.c_proj", "mlp.c_proj"]),
    Case("oft", 211, OFTConfig, {"oft_block_size": 8}),
    Case("oft_cayley", 212, OFTConfig, {"r": 4, "oft_block_size": 0, "use_cayley_neumann": False}),
    Case("oft_constrained", 213, OFTConfig, {
        "oft_block_size": 16, "coft": True, "eps": 0.01, "block_share": True,
        "num_cayley_neumann_terms": 3,
    }),
    Case("oft_embedding", 214, OFTConfig, {"oft_block_size": 8}, targets=["embed_tokens"]),
    Case("dora_conv1d", 215, LoraConfig, DORA | {"fan_in_fan_out": True}, "gpt2", GPT2_TARGETS),
    Case("dora_embedding", 216, LoraConfig, DORA, targets=["embed_tokens", "q_proj"]),
    Case("dora_twice", 217, LoraConfig, DORA, second=DORA | {"r": 2}),
    Case("dora_twice_conv1d", 218, LoraConfig, DORA | {"fan_in_fan_out": True}, "gpt2",
         ["c_attn"], DORA | {"fan_in_fan_out": True, "r": 2}),
    Case("dora_then_lora", 219, LoraConfig, DORA, second={"r": 2, "lora_alpha": 4}),
    Case("lora_then_dora", 220, LoraConfig, {"r": 2, "lora_alpha": 4}, second=DORA),
)  # fmt: skip
