#!/usr/bin/env python3
"""Writes tests/data/chat_templates.json: templates, contexts, and what Jinja makes of them as transformers sets it up.

Needs the package `jinja2`:

    tools/make_template_references.py
"""

import json
import pathlib

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data"


class Generation(jinja2.ext.Extension):
    """{% generation %} marks what an assistant wrote; for rendering it is nothing."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.If(jinja2.nodes.Const(True), body, [], [], lineno=line)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


ENVIRONMENT = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
ENVIRONMENT.filters["tojson"] = tojson
ENVIRONMENT.globals["raise_exception"] = raise_exception

SMOLLM2 = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
           "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
           "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
           "{{ '<|im_start|>assistant\n' }}{% endif %}")

# Templates in the styles of well-known models, written for these tests.
STYLES = {
    "smollm2": SMOLLM2,
    "llama2": """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "llama3": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message, so that it can be put first. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "You have these functions:\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "qwen2.5": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nSignatures are within <tools></tools>:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\n<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "qwen3": """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "mistral": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + "}[/TOOL_RESULTS]" }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}""",
    "deepseek": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is none %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls']%}{%- if not ns.is_first %}{{'<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments']|tojson + '\\n' + '```' + '<｜tool▁call▁end｜>'}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + '<｜tool▁call▁begin｜>' + tool['type']}}{%- endif %}{%- endfor %}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{%- if ns.is_tool %}{{'<｜tool▁outputs▁end｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{{'\\n<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>'}}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜>'}}{% endif %}""",
    "command-r": """{% macro part(message, strip=true) -%}
{%- if message.content is string -%}{{ message.content|trim if strip else message.content }}{%- else -%}
{%- for item in message.content %}{{ item.text if item.type == 'text' else '<image>' }}{% endfor -%}
{%- endif -%}
{%- endmacro -%}
{% for message in messages %}
{% generation %}<|{{ message.role|upper }}|>{{ part(message) }}{% endgeneration %}

{% endfor %}""",
}

TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather of a \"city\" in °C", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "default": 1.5}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "noop", "parameters": {}, "return": "x"}}]
CALL = {"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "ok": True, "no": None, "list": [], "map": {}}}}
U, A, S = (lambda r: lambda c: {"role": r, "content": c})("user"), (lambda c: {"role": "assistant", "content": c}), (lambda c: {"role": "system", "content": c})
CONVERSATIONS = [
    {"messages": [U("Hello")]},
    {"messages": [U(" Hi\n"), A("  Hello there! "), U("How are you? 😀")], "add_generation_prompt": True},
    {"messages": [S("Be  brief. "), U("a"), A("<think>\nhm\n</think>\n\nb"), U("c")], "add_generation_prompt": True},
    {"messages": [S("s"), U("weather?")], "tools": TOOLS, "add_generation_prompt": True},
    {"messages": [U("weather?"), {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "12°"}, A("It is 12°."), U("ok")], "tools": TOOLS},
    {"messages": [U("x"), {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}, A("y")], "add_generation_prompt": False, "enable_thinking": False},
    {"messages": [A("first"), U("x")]},
    {"messages": [U([{"type": "text", "text": "look"}, {"type": "image"}])], "add_generation_prompt": True},
    {"messages": []},
]

# One feature a line.
SNIPPETS = r"""
{{ a }}{{ b }}|{{ missing }}|{{ n }}|{{ yes }}|{{ f }}
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 1.5 + 1 }} {{ 10 / 4 }} {{ 1e3 }} {{ 1_000 }} {{ 0x1F }}
{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e-5 }} {{ 123456789012345.6 }} {{ 3.0 }} {{ -0.0 }} {{ 1e22 }} {{ 5e-324 }} {{ 0.0001 }}
{{ 'a' 'b' "c" }} {{ 'it''s' }} {{ "tab\tnew\nline \\ \' \" \x41 \u00e9 \q" }}
{{ [1, 'a', none, true, 2.5, [], {}, (1,), (1, 2)] }} {{ {'a': 1, 'b': [1], 3: "it's"} }}
{{ "it's" ~ 1 ~ none ~ true ~ missing ~ [1] }} {{ ['it\'s', "a\"b", '\n\t\r\x01\xa0é\u200b😀\\'] }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' == 'a' != 'b' }} {{ 1 == '1' }} {{ none == missing }}
{{ 'a' in 'abc' }} {{ 'x' not in 'abc' }} {{ 1 in [1, 2] }} {{ 'a' in {'a': 1} }} {{ 'x' in missing }} {{ not 1 in [2] }} {{ 2 in (1, 2) }}
{{ not true or true and false }} {{ 0 or 'x' }} {{ '' and 'y' }} {{ none or missing or 0 }} {{ not missing }}
{{ 'yes' if yes else 'no' }} {{ 'x' if not yes }}| {{ 1 if false else 2 if false else 3 }}
{{ s[0] }} {{ s[-1] }} {{ s[1:3] }} {{ s[::-1] }} {{ s[::2] }} {{ s[-2:] }} {{ s[:-1] }} {{ s[5:1] }}| {{ items[1:] }} {{ items[::-1] }} {{ items[-1] }} {{ items[10] }}| {{ items[5:1:-2] }} {{ s[100] }}|
{{ d.a }} {{ d['b'] }} {{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.get('a') }} {{ d.get('zz') }} {{ d.get('zz', 5) }} {{ d.zz }}| {{ d['zz'] }}|
{% for x in items %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for x in items if x > 1 %}{{ x }}/{{ loop.length }},{% else %}none{% endfor %}|{% for x in [] %}{{ x }}{% else %}empty{% endfor %}|{% for x in missing %}a{% else %}b{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in 'añ😀' %}{{ c }}.{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %} {{ range(3) | list }} {{ range(1, 10, 3) | list }} {{ range(5, 0, -2) | list }}
{% for x in [1, 2] %}{% for y in [3, 4] %}{{ loop.depth }}{{ x }}{{ y }}{{ loop.cycle('o', 'e') }}{{ loop.changed(x) }} {% endfor %}{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 5 %}{{ x }}{% endfor %}{{ x }} {% set ns = namespace(x=1, y='a') %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.z }}
{% set a, b = 1, 2 %}{{ a }}{{ b }} {% set t = 1, 2 %}{{ t }} {% set c %}block {{ a }}{% endset %}{{ c }} {% set u | upper | replace('K', 'X') %}block{% endset %}{{ u }}
{% if yes %}{% set q = 1 %}{% endif %}{{ q }} {% with z = 3, w = 4 %}{{ z }}{{ w }}{% endwith %}{{ z }}|
{% macro m(x, y=2, z='d') %}[{{ x }}{{ y }}{{ z }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, z='k') }}{{ m() }}{{ m(y=5, x=4) }}{{ m.name }}
{% macro outer(n) %}{% if n > 0 %}{{ n }}{{ outer(n - 1) }}{% endif %}{% endmacro %}{{ outer(5) }} {% macro w() %}<{{ caller() }}>{% endmacro %}{% call w() %}in{% endcall %} {% macro v(l) %}{% for i in l %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(i) v([1, 2]) %}({{ i }}){% endcall %}
{% filter upper | trim %}  hello {{ 'x' }} {% endfilter %}|{% raw %}{{ not }} {% this %}{% endraw %}|{# comment {{ x }} #}|
{{ '  x y '|trim }}|{{ 'xxaxx'|trim('x') }}|{{ ' a '.strip() }}|{{ 'xax'.strip('x') }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'abcab'.rstrip('ab') }}|{{ '\u3000a\xa0'|trim }}|
{{ 'a,b,,c'.split(',') }} {{ ' a  b\tc '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a\nb\r\nc\n'.splitlines() }} {{ 'abc'.split('x') }} {{ ''.split(',') }} {{ ''.split() }} {{ 'a b c'.split(None, 1) }}
{{ 'Hello World'.upper() }} {{ 'ÀÉ'.lower() }} {{ 'hello wORLD o\'neil'.title() }} {{ 'hELLO wORLD'.capitalize() }} {{ "hello wORLD-foo (bar) o'neil"|title }} {{ 'hELLO'|capitalize }} {{ 'éa'|upper }} {{ 'ΣΑ'|lower }}
{{ 'abc'.startswith('a') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abcabc'.replace('b', 'X') }} {{ 'abcabc'.replace('b', 'X', 1) }} {{ 'ab'|replace('', '-') }} {{ 'abc'.find('c') }} {{ 'abc'.find('z') }} {{ 'banana'.count('an') }} {{ ','.join(['a', 'b']) }} {{ '12'.isdigit() }} {{ '7'.zfill(3) }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }}
{{ items|tojson }} {{ d|tojson }} {{ {'b': 1, 'a': [1, {'x': none}], 'é': '😀<&>\n"\\'}|tojson }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ 'é😀'|tojson(ensure_ascii=true) }} {{ [1, 2]|tojson(separators=(',', ':')) }} {{ 1.0|tojson }} {{ true|tojson }} {{ none|tojson }} {{ (1, 2)|tojson }} {{ {1: 2, none: 3, true: 4}|tojson }}
{{ {'a': [1, {}, [], {'b': 2}], 'c': ''}|tojson(indent=2) }}
{{ s|length }} {{ items|length }} {{ d|length }} {{ 'añ😀'|count }} {{ missing|length }} {{ items|first }} {{ items|last }} {{ s|first }} {{ s|last }} {{ []|first }}| {{ items|join(', ') }} {{ ['a', 'b']|join }} {{ [{'n': 1}, {'n': 2}]|join('-', attribute='n') }}
{{ missing|default('x') }} {{ ''|default('x') }}| {{ ''|default('x', true) }} {{ none|default('x') }} {{ none|d('x', boolean=true) }} {{ missing|default }}| {{ d.zz|default([]) }}
{{ '42'|int }} {{ '4.7'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 3.99|int }} {{ '1f'|int(base=16) }} {{ '1.5'|float }} {{ 'x'|float }} {{ 2|float }} {{ true|int }} {{ 5|string + 'a' }} {{ [1]|string }} {{ none|string }} {{ ' 12 '|int }}
{{ [{'n': 'a'}, {'n': 'b'}]|map(attribute='n')|list }} {{ ['a', 'b']|map('upper')|join }} {{ [{'a': {'b': 5}}]|map(attribute='a.b')|list }} {{ [{'n': 1}, {}]|map(attribute='n', default=0)|list }} {{ ['x-y']|map('replace', '-', '+')|list }} {{ [[1, 2], [3, 4]]|map('first')|list }}
{{ [1, 0, 2]|select|list }} {{ [1, 2, 3]|select('odd')|list }} {{ [1, 2, 3]|reject('odd')|list }} {{ [{'r': 'u'}, {'r': 'a'}, {}]|selectattr('r', 'equalto', 'u')|list }} {{ [{'r': 1}, {}]|selectattr('r')|list }} {{ [{'r': 1}, {}]|rejectattr('r', 'defined')|list }} {{ [1, 2, 3]|select('>', 1)|list }} {{ [1, 5]|select('in', [5, 6])|list }}
{{ d|dictsort }} {{ {'b': 1, 'A': 2}|dictsort }} {{ {'b': 1, 'A': 2}|dictsort(by='value', reverse=true) }} {{ d|items|list }} {{ [3, 1, 2]|sort }} {{ ['b', 'A', 'c']|sort }} {{ ['b', 'A']|sort(case_sensitive=true) }} {{ [3, 1, 2]|sort(reverse=true) }} {{ [{'n': 2}, {'n': 1}]|sort(attribute='n') }}
{{ [1, 2, 3]|reverse|list }} {{ 'abc'|reverse }} {{ ['a', 'A', 'b', 'a']|unique|list }} {{ [1, 1, 2]|unique|list }} {{ [1, 5, 2]|max }} {{ [1, 5, 2]|min }} {{ [1, 2.5]|sum }} {{ [{'x': 1}, {'x': 2}]|sum(attribute='x') }} {{ [1, 2]|sum(start=10) }}
{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(2, blank=true) }}|{{ 'a\nb\n'|indent('> ') }}|
{{ -3|abs }} {{ (-3.5)|abs }} {{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 42.55|round(1, 'floor') }} {{ 42.1|round(method='ceil') }} {{ 42|round }} {{ '<a href="x">\'&'|escape }} {{ '<'|e }} {{ '<b>'|safe }} {{ 'a b  c'|wordcount }} {{ 'abc'|list }} {{ d|list }}
{{ a is defined }} {{ zz is defined }} {{ zz is not defined }} {{ zz is undefined }} {{ none is none }} {{ 'a' is string }} {{ 1 is number }} {{ true is number }} {{ 1.5 is float }} {{ 1 is integer }} {{ true is boolean }} {{ d is mapping }} {{ items is iterable }} {{ items is sequence }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 3 is odd }} {{ 4 is even }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }} {{ 'a' is eq 'a' }} {{ 1 is equalto 2 }} {{ 2 is in [1, 2] }} {{ 'a' is lower }} {{ 'A' is upper }} {{ range is callable }} {{ none is sameas none }} {{ 2 is gt 1 }} {{ 1 is ge 2 }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ a is defined and not zz is defined }}
{{ s.upper()[:3].lower() ~ (items|join)|length }} {{ (1, 2)[0] }} {{ [1, 2, 3][1] }} {{ {'a': {'b': [1, 2]}}.a.b[1] }} {{ -items[0] + +items[1] }} {{ 'ab' * 3 }} {{ [0] * 3 }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ not not 1 }} {{ dict(a=1, b=2) }} {{ 2 * 'x' }} {{ [1,2,] }}{{ {'a':1,} }}
  {% if true %}  
  indented
  {%- endif %}  tail {%+ if true %} plus {% endif +%}
x
{{- '  a' -}}   y {%- if true -%}  z  {%- endif -%}  w  {#- c -#}  v
{{ items.append(9) }}
{{ d.update({'x': 1}) }}
{{ missing.x }}
{{ missing + 1 }}
{{ 1 + 'a' }}
{{ none|length }}
{{ raise_exception('no: ' ~ 1) }}
{{ 1 / 0 }}
{{ 'a' < 1 }}
{% for x in none %}{% endfor %}
{% for x in 5 %}{% endfor %}
{{ zz() }}
{{ [1]|tojson(indent=1) }}{{ {}|tojson(indent=2) }}{{ '' | tojson }}{{ 'a\u2028\x7f' | tojson }}
{{ messages[0].content[0].text }} {{ messages[0]['content'][1]['type'] == 'image' }}
"""

MULTILINE = [
    "line one\n  {% if true %}\nindented\n  {% endif %}\nlast\n", "a\n\n{% set x = 1 %}\n\nb\n\n", "{% for i in [1,2] %}\n- {{ i }}\n{% endfor %}\n\n",
    "  {{ 1 }}\n  {# c #}\n  d", "\t{%- if true %}\n x {% else %} y\n{% endif -%}\n\n z", "a\r\nb\r{% if true %}\r\nc{% endif %}\r\n", "{% raw %}\n a {{ b }}\n  {% endraw %}\nc",
    "{% raw -%}  \n a {%- endraw %}\nc", "a {%- raw %} b {% endraw -%}  c", "{{ {'a': {'b': 1}} }}{{ {'a': {}}}}", "{% set x %}\n  {{ 1 }}\n{% endset %}[{{ x }}]", "a{# one\n two #}\n\nb\n{#- x -#}\n c",
    "{% macro f(a) %}\n  {{ a }}\n{% endmacro %}\n{{ f(1) }}{{ f('x') }}", "{", "{ {", "}} %}", "a {\n", "", "\n", "\n\n", " \n  {%+ if true %}x{% endif %}",
]
CONTEXT = {"a": "A", "b": 2, "n": None, "yes": True, "f": 1.0, "s": "hällo", "items": [1, 2, 3], "d": {"b": 1, "a": "x"},
           "messages": [U([{"type": "text", "text": "hi"}, {"type": "image"}])]}


def render(source, context):
    try:
        return ENVIRONMENT.from_string(source).render(**context)
    except (jinja2.exceptions.TemplateError, TypeError, ZeroDivisionError) as error:
        print(f"  refused: {source[:60]!r}: {error}")
        return None


def main():
    frame = {"bos_token": "<s>", "eos_token": "</s>"}
    cases = []
    for name, source in STYLES.items():
        results = []
        for i, conversation in enumerate(CONVERSATIONS):
            print(name, i)
            results.append(render(source, conversation | frame))
        cases.append({"name": name, "source": source, "results": results})
    snippets = [line for line in SNIPPETS.strip("\n").split("\n")] + MULTILINE
    value = {"conversations": [c | frame for c in CONVERSATIONS], "styles": cases, "context": CONTEXT,
             "snippets": [[s, render(s, CONTEXT)] for s in snippets]}
    path = DATA / "chat_templates.json"
    path.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
