"""Trains the example's tokenizer: SentencePiece BPE with byte fallback, as Llama's is.

Both forms are written, `tokenizer.model` for converters that read SentencePiece and
`tokenizer.json` for the rest, and checked against each other: a release whose two tokenizers
disagree answers differently in every runtime.
"""

import json
from pathlib import Path

VOCABULARY_SIZE = 512
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] + ': ' + message['content'] + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
TOKENIZER_CONFIG = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "</s>",
    "legacy": False,
    "model_max_length": 256,
    "pad_token": "</s>",
    "padding_side": "right",
    "tokenizer_class": "LlamaTokenizer",
    "unk_token": "<unk>",
}


def train_tokenizer(lines: list[str], folder: Path) -> None:
    import sentencepiece

    with open(folder / "tokenizer.model", "wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=VOCABULARY_SIZE,
            byte_fallback=True,
            split_digits=True,
            # Whitespace and newlines reach the model unchanged.
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            character_coverage=1.0,
            num_threads=1,
            minloglevel=2,
        )
    config = {"chat_template": CHAT_TEMPLATE, **TOKENIZER_CONFIG}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_fast_tokenizer(folder)


def write_fast_tokenizer(folder: Path) -> None:
    from transformers import LlamaTokenizer

    tokenizer = LlamaTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def check_tokenizers_agree(folder: Path, texts: list[str]) -> None:
    """Texts that begin with a space are known to differ and have no place here: transformers
    adds SentencePiece's leading space only where there is none yet.
    """
    import sentencepiece
    from transformers import AutoTokenizer

    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == reference.vocab_size() == VOCABULARY_SIZE
    for text in texts:
        expected = [reference.bos_id(), *reference.encode(text)]
        assert tokenizer(text).input_ids == expected, f"tokenizers disagree on {text!r}"
