"""Makes test/golden/chat.json: conversations as transformers' apply_chat_template writes them.

    .oracle/bin/python test/golden/make_chat.py

The templates use what those of published models use: namespaces, loop variables, slices, macros,
filters, whitespace control, exceptions, the date. Each is kept with its tokenizer's configuration, so
that the file is all that the test needs. The clock is set to the day that weldline gives to templates.
"""

import json
import os
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "examples/tiny/base"
SMOLLM2 = ROOT / ".oracle/models/smollm2-135m"

CONVERSATIONS = {
    "question": [{"role": "user", "content": "What is 2 + 2?"}],
    "system": [
        {"role": "system", "content": "  Answer in one word.\n"},
        {"role": "user", "content": "Capital of Norway?"},
    ],
    "turns": [
        {"role": "user", "content": "Grüße & <tags> 日本 🎉"},
        {"role": "assistant", "content": " Hello.\n\nHow are you? "},
        {"role": "user", "content": "Fine\n{{ not_a_template }}"},
    ],
    "wrong-order": [
        {"role": "assistant", "content": "I begin."},
        {"role": "assistant", "content": "And go on."},
    ],
}

TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "date": (
        "{{- bos_token }}\n"
        "{%- if custom_tools is defined %}\n    {%- set tools = custom_tools %}\n{%- endif %}\n"
        "{%- if not date_string is defined %}\n"
        "    {%- if strftime_now is defined %}\n"
        '        {%- set date_string = strftime_now("%d %b %Y, %A %H:%M") %}\n'
        '    {%- else %}\n        {%- set date_string = "26 Jul 2024" %}\n    {%- endif %}\n'
        "{%- endif %}\n"
        "{%- if messages[0]['role'] == 'system' %}\n"
        "    {%- set system_message = messages[0]['content']|trim %}\n"
        "    {%- set messages = messages[1:] %}\n"
        '{%- else %}\n    {%- set system_message = "" %}\n{%- endif %}\n'
        '{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}\n'
        '{%- if tools is not none %}\n    {{- "Environment: ipython\\n" }}\n{%- endif %}\n'
        '{{- "Today Date: " + date_string + "\\n\\n" }}\n{{- system_message }}\n'
        "{{- eos_token }}\n"
        "{%- for message in messages %}\n"
        "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
        " + message['content'] | trim + '<|eot_id|>' }}\n"
        "{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n"
        "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n"
    ),
    "strict": (
        "{%- if messages[0][\"role\"] == \"system\" %}\n"
        "    {%- set system_message = messages[0][\"content\"] %}\n"
        "    {%- set loop_messages = messages[1:] %}\n"
        "{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n"
        "{%- set ns = namespace(index=0, last=none) %}\n"
        "{%- for message in loop_messages %}\n"
        "    {%- if (message[\"role\"] == \"user\") != (ns.index % 2 == 0) %}\n"
        "        {{- raise_exception(\"Roles must alternate user/assistant\") }}\n"
        "    {%- endif %}\n    {%- set ns.index = ns.index + 1 %}\n{%- endfor %}\n"
        "{{- bos_token }}\n"
        "{%- for message in loop_messages %}\n"
        "    {%- if message[\"role\"] == \"user\" %}\n"
        "        {%- if loop.last and system_message is defined %}\n"
        "            {{- \"[INST] \" + system_message + \"\\n\\n\" + message[\"content\"] + \"[/INST]\" }}\n"
        "        {%- else %}\n"
        "            {{- \"[INST] \" + message[\"content\"] + \"[/INST]\" }}\n        {%- endif %}\n"
        "    {%- else %}\n        {{- \" \" + message[\"content\"]|trim + eos_token}}\n    {%- endif %}\n"
        "{%- endfor %}\n"
    ),
    "reasoning": (
        "{%- macro turn(role, content) -%}\n<|{{ role }}|>\n{{ content }}\n{%- endmacro -%}\n"
        "{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}\n"
        "{%- for message in messages[::-1] %}\n"
        "    {%- set index = (messages|length - 1) - loop.index0 %}\n"
        "    {%- if ns.multi_step and message.role == \"user\" and message.content is string %}\n"
        "        {%- set ns.multi_step = false %}\n        {%- set ns.last = index %}\n"
        "    {%- endif %}\n{%- endfor %}\n"
        "{%- for message in messages %}\n"
        "    {%- if message.role == 'assistant' %}\n"
        "        {%- generation %}{{ turn('assistant', message.content.strip('\\n ')"
        ".split('</think>')[-1].lstrip('\\n')) }}{%- endgeneration %}\n"
        "    {%- else %}\n        {{- turn(message['role'], message.get('content', '')) }}\n"
        "    {%- endif %}\n    {{- ' #' ~ loop.index ~ '/' ~ ns.last ~ '\\n' }}\n"
        "{%- endfor %}\n"
        "{%- if enable_thinking is defined and enable_thinking is false %}off{%- endif %}\n"
        "{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}\n\n"
    ),
    "filters": (
        "{{ messages | tojson }}\n{{ messages[0] | tojson(indent=2) }}\n"
        "{{ messages | map(attribute='role') | join(', ') | upper }}\n"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}\n"
        "{%- for message in messages if message.role != 'system' %}\n"
        "{% if loop.index > 2 %}{% break %}{% endif %}\n"
        "  {{ message.role | capitalize | replace('User', 'Human') }}: {{ message.content | trim }}"
        "{{ ' (last)' if loop.last else '' }}\n"
        "{%- else %}none{%- endfor %}\n"
        "{% set parts = ['a', 'b'] + ['c'] %}{{ parts[1:] | join('-') }} {{ 7 // 2 }}{% if 'x' in 'xyz' %} in{% endif %}\n"
        "{# a comment #}   {% if true %}\n   indented\n   {% endif %}\nend"
        "{% for i in range(1, 6, 2) %}{{ i }}{% endfor %}"
    ),
}


def config_of(template: object) -> dict:
    config = json.loads((TINY / "tokenizer_config.json").read_text())
    return {**config, "chat_template": template}


def cases() -> list[tuple[str, dict, str | None]]:
    """Name, tokenizer_config.json, chat_template.jinja."""
    listed = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "listed {{ messages[0].content }}"},
    ]
    object_tokens = {
        **config_of("{{ bos_token }}{{ unk_token }}{{ pad_token }}{{ sep_token }}|"),
        "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": False, "rstrip": False},
    }
    return [
        ("tiny", json.loads((TINY / "tokenizer_config.json").read_text()), None),
        *((name, config_of(template), None) for name, template in TEMPLATES.items()),
        ("named", config_of(listed), None),
        ("file", config_of("not this"), TEMPLATES["chatml"] + "\n"),
        ("tokens", object_tokens, None),
    ]


def render(tokenizer, messages: list[dict]) -> dict:
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        return {"error": str(error)}
    return {"text": text}


def main() -> None:
    import transformers.utils.chat_template_utils as chat
    from transformers import AutoTokenizer

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2024, 7, 26)

    chat.datetime = Clock
    golden = []
    for name, config, file in cases():
        with tempfile.TemporaryDirectory() as directory:
            shutil.copy(TINY / "tokenizer.json", directory)
            (Path(directory) / "tokenizer_config.json").write_text(json.dumps(config))
            if file is not None:
                (Path(directory) / "chat_template.jinja").write_text(file)
            tokenizer = AutoTokenizer.from_pretrained(directory)
            texts = {key: render(tokenizer, value) for key, value in CONVERSATIONS.items()}
        kept = {key: config[key] for key in config if key.endswith(("_token", "_template"))}
        golden.append({"name": name, "config": kept, "file": file, "texts": texts})
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    texts = {key: render(tokenizer, value) for key, value in CONVERSATIONS.items()}
    config = json.loads((SMOLLM2 / "tokenizer_config.json").read_text())
    kept = {key: config[key] for key in config if key.endswith(("_token", "_template"))}
    file = (SMOLLM2 / "chat_template.jinja").read_text()
    golden.append({"name": "smollm2", "config": kept, "file": file, "texts": texts})
    path = Path(__file__).parent / "chat.json"
    content = {"conversations": CONVERSATIONS, "templates": golden}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
