"""A call, and a thought, in the dialects of models, as their chat templates have them."""

from __future__ import annotations

import json

from medseg_gym.prompts import encode_tool_call

BAR, LOW = "\uff5c", "\u2581"  # of DeepSeek's marks


def call_of(prompt):
    call = json.loads(encode_tool_call(prompt)[11:-12])
    return call["name"], call["arguments"]


def hermes(name, arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def hermes_commas(name, arguments):
    inner = ", ".join(f'"{k}": {json.dumps(v)[:-1]},]' for k, v in arguments.items())
    if name == "add_point":
        inner = f'"point_2d": [{arguments["point_2d"][0]}, {arguments["point_2d"][1]},], '
        inner += f'"point_type": "{arguments["point_type"]}",'
    return f'<tool_call>{{"name": "{name}", "arguments": {{{inner}}},}}</tool_call>'


def hermes_python(name, arguments):
    return f"<tool_call>{ {'name': name, 'arguments': arguments} }</tool_call>"


def hermes_text(name, arguments):
    call = {"name": name, "arguments": json.dumps(arguments)}
    return f"<tool_call>{json.dumps(call)}</tool_call>"


def hermes_text_twice(name, arguments):
    call = {"name": name, "arguments": json.dumps(json.dumps(arguments))}
    return f"<tool_call>{json.dumps(call)}</tool_call>"


def hermes_parameters(name, arguments):
    return f"<tool_call>{json.dumps({'name': name, 'parameters': arguments})}</tool_call>"


def hermes_fenced(name, arguments):
    return f"<tool_call>\n```json\n{json_alone(name, arguments)}\n```\n</tool_call>"


def openai_object(name, arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return json.dumps({"id": "call_1", "type": "function", "function": function})


def openai_message(name, arguments):
    return f'{{"role": "assistant", "tool_calls": [{openai_object(name, arguments)}]}}'


def json_alone(name, arguments):
    return json.dumps({"name": name, "arguments": arguments})


def json_fenced(name, arguments):
    return f"```json\n{json.dumps({'name': name, 'arguments': arguments}, indent=2)}\n```"


def json_list(name, arguments):
    return f"[{json_alone(name, arguments)}]"


def langchain(name, arguments):
    return f"```\n{json.dumps({'action': name, 'action_input': arguments})}\n```"


def qwen3_coder(name, arguments):
    inner = "".join(
        f"<parameter={k}>\n{v if isinstance(v, str) else json.dumps(v)}\n</parameter>\n"
        for k, v in arguments.items()
    )
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call>"


def qwen3_coder_bare(name, arguments):
    return qwen3_coder(name, arguments).replace("<tool_call>\n", "").replace("\n</tool_call>", "")


def qwen3_coder_loose(name, arguments):
    return qwen3_coder(name, arguments).replace("\n</parameter>", "").replace("\n", "")


def seed(name, arguments):
    return qwen3_coder(name, arguments).replace("tool_call>", "seed:tool_call>")


def glm(name, arguments):
    inner = "".join(
        f"<arg_key>{k}</arg_key>\n<arg_value>{v if isinstance(v, str) else json.dumps(v)}"
        "</arg_value>\n"
        for k, v in arguments.items()
    )
    return f"<tool_call>{name}\n{inner}</tool_call>"


def glm_tight(name, arguments):
    return glm(name, arguments).replace("\n", "")


def python_arguments(arguments):
    return ", ".join(f"{k}={v!r}" for k, v in arguments.items())


def pythonic(name, arguments):
    return f"[{name}({python_arguments(arguments)})]"


def python_alone(name, arguments):
    return f"{name}({python_arguments(arguments)})"


def python_positions(name, arguments):
    return f"{name}({', '.join(map(repr, arguments.values()))})"


def python_numbers(name, arguments):
    flat = [x for v in arguments.values() for x in (v if isinstance(v, list) else [v])]
    return f"{name}({', '.join(map(repr, flat))})"


def python_tuples(name, arguments):
    return python_alone(name, arguments).replace("[", "(").replace("]", ")")


def llama4(name, arguments):
    return f"<|python_start|>{pythonic(name, arguments)}<|python_end|>"


def lfm2(name, arguments):
    return f"<|tool_call_start|>{pythonic(name, arguments)}<|tool_call_end|><|im_end|>"


def olmo(name, arguments):
    return f"<function_calls>\n{python_alone(name, arguments)}\n</function_calls>"


def tool_code(name, arguments):
    return f"```tool_code\n{python_alone(name, arguments)}\n```"


def tool_code_print(name, arguments):
    return f"```tool_code\nprint(default_api.{python_alone(name, arguments)})\n```"


def python_fenced(name, arguments):
    return f"```python\nresult = {python_alone(name, arguments)}\n```"


def llama3(name, arguments):
    return f"<|python_tag|>{json.dumps({'name': name, 'parameters': arguments})}<|eom_id|>"


def llama3_plain(name, arguments):
    return json.dumps({"type": "function", "name": name, "parameters": arguments}) + "<|eot_id|>"


def llama_function(name, arguments):
    return f"<function={name}>{json.dumps(arguments)}</function>"


def mistral(name, arguments):
    return f"[TOOL_CALLS] [{json.dumps({'name': name, 'arguments': arguments, 'id': 'a1'})}]</s>"


def mistral_args(name, arguments):
    return f"[TOOL_CALLS]{name}[ARGS]{json.dumps(arguments)}"


def mistral_id(name, arguments):
    return f"[TOOL_CALLS]{name}[CALL_ID]a1b2c3d4e[ARGS]{json.dumps(arguments)}"


def deepseek(name, arguments):
    begins = _deepseek_mark("calls", "begin") + _deepseek_mark("call", "begin")
    ends = _deepseek_mark("call", "end") + _deepseek_mark("calls", "end")
    inner = f"{name}\n```json\n{json.dumps(arguments)}\n```"
    return f"{begins}function{_deepseek_mark('sep')}{inner}{ends}"


def _deepseek_mark(*words):
    return f"<{BAR}{LOW.join(['tool', *words])}{BAR}>"


def deepseek_plain(name, arguments):
    return deepseek(name, arguments).replace(BAR, "|")


def deepseek_31(name, arguments):
    begins = _deepseek_mark("calls", "begin") + _deepseek_mark("call", "begin")
    ends = _deepseek_mark("call", "end") + _deepseek_mark("calls", "end")
    ends += f"<{BAR}end{LOW}of{LOW}sentence{BAR}>"
    return f"{begins}{name}{_deepseek_mark('sep')}{json.dumps(arguments)}{ends}"


def deepseek_32(name, arguments):
    ds = f"{BAR}DSML{BAR}"
    inner = "".join(
        f'<{ds}parameter name="{k}" string="{"true" if isinstance(v, str) else "false"}">'
        f"{v if isinstance(v, str) else json.dumps(v)}</{ds}parameter>\n"
        for k, v in arguments.items()
    )
    return (
        f'<{ds}function_calls>\n<{ds}invoke name="{name}">\n{inner}</{ds}invoke>\n'
        f"</{ds}function_calls>"
    )


def kimi(name, arguments):
    return (
        f"<|tool_calls_section_begin|><|tool_call_begin|>functions.{name}:0"
        f"<|tool_call_argument_begin|>{json.dumps(arguments)}<|tool_call_end|>"
        "<|tool_calls_section_end|>"
    )


def kimi_without_marks(name, arguments):
    return f"functions.{name}:0{json.dumps(arguments)}"


def minimax(name, arguments):
    inner = "".join(
        f'<parameter name="{k}">{v if isinstance(v, str) else json.dumps(v)}</parameter>\n'
        for k, v in arguments.items()
    )
    return f'<minimax:tool_call>\n<invoke name="{name}">\n{inner}</invoke>\n</minimax:tool_call>'


def minimax_1(name, arguments):
    return f"<tool_calls>\n{json_alone(name, arguments)}\n</tool_calls>"


def invoke(name, arguments):
    return minimax(name, arguments).replace("minimax:tool_call", "function_calls")


def harmony(name, arguments):
    return (
        "<|channel|>analysis<|message|>A box will do.<|end|><|start|>assistant"
        f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
        f"{json.dumps(arguments)}<|call|>"
    )


def harmony_header(name, arguments):
    return (
        f"<|start|>assistant to=functions.{name}<|channel|>commentary json<|message|>"
        f"{json.dumps(arguments)}<|call|>"
    )


def granite(name, arguments):
    return f"<|tool_call|>[{json_alone(name, arguments)}]"


def phi(name, arguments):
    return f"<|tool_call|>[{json_alone(name, arguments)}]<|/tool_call|>"


def internlm(name, arguments):
    call = json.dumps({"name": name, "parameters": arguments})
    return f"<|action_start|><|plugin|>\n{call}<|action_end|>"


def cohere(name, arguments):
    call = {"tool_call_id": "0", "tool_name": name, "parameters": arguments}
    return (
        "<|START_THINKING|>A box.<|END_THINKING|><|START_ACTION|>[\n"
        f"    {json.dumps(call)}\n]<|END_ACTION|>"
    )


def nemotron(name, arguments):
    return f"<TOOLCALL>[{json_alone(name, arguments)}]</TOOLCALL>"


def apertus(name, arguments):
    return f"<|tools_prefix|>[{json.dumps({name: arguments})}]<|tools_suffix|>"


def gemma_function(name, arguments):
    inner = ",".join(
        f"{k}:<escape>{v}<escape>" if isinstance(v, str) else f"{k}:{json.dumps(v)}"
        for k, v in arguments.items()
    )
    return f"<start_function_call>call:{name}{{{inner}}}<end_function_call>"


def gemma_4(name, arguments):
    inner = ",".join(
        f'{k}:<|"|>{v}<|"|>' if isinstance(v, str) else f"{k}:{json.dumps(v)}"
        for k, v in arguments.items()
    )
    return f"<|tool_call>call:{name}{{{inner}}}<tool_call|>"


def hunyuan(name, arguments):
    return f"<tool_call>{name}\n```json\n{json.dumps(arguments)}\n```\n</tool_call>"


def react(name, arguments):
    return f"Action: {name}\nAction Input: {json.dumps(arguments)}"


def older(name, arguments):
    if name != "add_point":
        return hermes(name, arguments)
    x, y = arguments["point_2d"]
    return hermes(f"add_{arguments['point_type']}_point", {"x": x, "y": y})


DIALECTS = [
    hermes, hermes_commas, hermes_python, hermes_text, hermes_text_twice, hermes_parameters,
    hermes_fenced, openai_object, openai_message, json_alone, json_fenced, json_list, langchain,
    qwen3_coder, qwen3_coder_bare, qwen3_coder_loose, seed, glm, glm_tight, pythonic, python_alone,
    python_positions, python_numbers, python_tuples, llama4, lfm2, olmo, tool_code,
    tool_code_print, python_fenced, llama3, llama3_plain, llama_function, mistral, mistral_args,
    mistral_id, deepseek, deepseek_plain, deepseek_31, deepseek_32, kimi, kimi_without_marks,
    minimax, minimax_1, invoke, harmony, harmony_header, granite, phi, internlm, cohere, nemotron,
    apertus, gemma_function, gemma_4, hunyuan, react, older,
]  # fmt: skip
THOUGHTS = [
    "<think>%s</think>", "<thinking>\n%s\n</thinking>\n\n", "<reasoning>%s</reasoning>",
    "<thought>%s</thought>", "%s</think>", "[THINK]%s[/THINK]",
    "\u25c1think\u25b7%s\u25c1/think\u25b7",
    "<|START_THINKING|>%s<|END_THINKING|>", "<unused94>thought\n%s<unused95>", "<Think>%s</think>",
    "<|channel|>analysis<|message|>%s<|end|><|start|>assistant", "<|channel>thought\n%s<channel|>",
    "<seed:think>%s</seed:think>", "<|begin_of_thought|>%s<|end_of_thought|>",
]  # fmt: skip
