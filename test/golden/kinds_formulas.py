"""What each kind of adapter makes of a weight, in float64, from its file and configuration.

The formulas of the papers, written without PEFT's code. Weights are as stored; a layer with
`fan_in_fan_out` stores [in, out].
"""

import re

import torch


def merge_exactly(config: dict, tensors: dict, module: str, weight, base):
    """`weight` after the adapter; `base` is the weight that the norms of DoRA are taken from."""
    stem = f"base_model.model.{module}."
    own = {
        name.removeprefix(stem).removesuffix(".weight"): tensor.double()
        for name, tensor in tensors.items()
        if name.startswith(stem)
    }
    kind = config["peft_type"]
    if kind == "IA3":
        return weight * turn(config, own["ia3_l"])
    if kind == "OFT":
        return rotate(config, own, weight)
    if kind == "LORA":
        return merge_lora(config, own, weight, base)
    return weight + turn(config, delta(config, own, tensors, module, weight))


def turn(config: dict, matrix):
    return matrix.T if config.get("fan_in_fan_out") else matrix


def setting(config: dict, pattern: str, default: str, module: str):
    for key, value in config.get(pattern, {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return config[default]


def delta(config: dict, own: dict, tensors: dict, module: str, weight):
    kind = config["peft_type"]
    if kind == "ADALORA":
        # PEFT divides by the rank before the pruning, plus 1e-5, in float32.
        strength = config["lora_alpha"] / (config["init_r"] + 1e-5)
        return strength * own["lora_B"] @ torch.diag(own["lora_E"].flatten()) @ own["lora_A"]
    if kind == "VERA":
        rows, columns = reversed(weight.shape) if config["fan_in_fan_out"] else weight.shape
        a = tensors["base_model.vera_A"].double()[:, :columns]
        b = tensors["base_model.vera_B"].double()[:rows]
        lambda_b, lambda_d = own["vera_lambda_b"], own["vera_lambda_d"]
        return torch.diag(lambda_b) @ b @ torch.diag(lambda_d) @ a
    rank = setting(config, "rank_pattern", "r", module)
    strength = setting(config, "alpha_pattern", "alpha", module) / rank
    if kind == "LOHA":
        first = own["hada_w1_a"] @ own["hada_w1_b"]
        return strength * first * (own["hada_w2_a"] @ own["hada_w2_b"])
    assert kind == "LOKR", kind
    return strength * torch.kron(whole(own, "lokr_w1"), whole(own, "lokr_w2"))


def whole(own: dict, name: str):
    return own[name] if name in own else own[f"{name}_a"] @ own[f"{name}_b"]


def merge_lora(config: dict, own: dict, weight, base):
    strength = config["lora_alpha"] / config["r"]
    if "lora_embedding_A" in own:
        added = strength * (own["lora_embedding_B"] @ own["lora_embedding_A"]).T
    else:
        added = strength * turn(config, own["lora_B"] @ own["lora_A"])
    magnitude = own.get("lora_magnitude_vector")
    if magnitude is None:
        return weight + added
    by_column = config["fan_in_fan_out"] or "lora_embedding_A" in own
    dim = 0 if by_column else 1
    norms = (base + added).norm(dim=dim, keepdim=True)
    return (magnitude.view(norms.shape) / norms) * (weight + added)


def rotate(config: dict, own: dict, weight):
    isometry = own.get("oft_R", own.get("oft_embedding_R"))
    size = round((1 + (1 + 8 * isometry.shape[1]) ** 0.5) / 2)
    blocks = [cayley(config, skew(row, size, config, len(isometry))) for row in isometry]
    if config["block_share"]:
        blocks *= weight.shape[1] // size
    rotation = torch.block_diag(*blocks)
    return weight @ (rotation if "oft_embedding_R" in own else rotation.T)


def skew(values, size: int, config: dict, count: int):
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix[tuple(torch.triu_indices(size, size, 1))] = values
    matrix = matrix - matrix.T
    if config["coft"]:
        radius = config["eps"] / count**0.5
        matrix = matrix * min(1.0, radius / float(matrix.norm()))
    return matrix


def cayley(config: dict, matrix):
    eye = torch.eye(len(matrix), dtype=torch.float64)
    if not config["use_cayley_neumann"]:
        return (eye - matrix) @ torch.linalg.inv(eye + matrix)
    terms = config["num_cayley_neumann_terms"]
    # I + 2Q + 2Q² + … + Qⁿ⁻¹, of which the first and the last term count once.
    powers = [torch.linalg.matrix_power(matrix, k) for k in range(1, max(terms, 4))]
    return eye + 2 * sum(powers[:-1]) + powers[-1]
