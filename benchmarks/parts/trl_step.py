"""A step of TRL's `GRPOTrainer` on the tasks of the benchmark; runs in TRL's own environment, which lacks ReCall.

It takes a JSON file of tasks, their prompts' token ids and the settings, and prints one JSON object. Each task is an
environment of `environment_factory` with methods for tools; the chat template writes ReCall's prompt, which is checked
token by token, and calls are parsed with TRL's own template for Qwen3. Tools run in this process, not in a sandbox.
"""

import inspect
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from parts.memory import Peak

JOINT = "\ue000"
"""Stands in the rendered text where ReCall encodes what follows on its own."""


def template(system: str) -> str:
    """A chat template that writes ReCall's prompt, `system` with `{func_schemas}` in it, its calls and its replies."""
    head, tail = system.split("{func_schemas}")
    schemas = (
        "{% for tool in tools or [] %}{% set f = tool.function %}{{ '' if loop.first else '\\n' }}"
        '{"type": "function", "function": {"name": {{ f.name | tojson }}, '
        '"description": {{ f.description | tojson }}, "parameters": {"type": "object", "properties": {{ "{" }}'
        "{% for name, schema in f.parameters.properties.items() %}"
        '{{ "" if loop.first else ", " }}{{ name | tojson }}: {"type": {{ schema.type | tojson }}}{% endfor %}}, '
        '"required": {{ f.parameters.required | tojson }}{{ "}}}" }}{% endfor %}'
    )
    results = (
        "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user\n{% endif %}"
        f"<tool_response>\n{JOINT}{{{{ m.content }}}}{JOINT}\n</tool_response>"
        "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% else %}{{ '\\n' }}{% endif %}"
    )
    calls = (
        "{% for call in m.tool_calls or [] %}{{ '' if loop.first else '\\n' }}<tool_call>\n"
        '{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}{{ "}" }}'
        "\n</tool_call>{% endfor %}"
    )
    return (
        f"<|im_start|>system\n{{% raw %}}{head}{{% endraw %}}{JOINT}{schemas}{JOINT}{{% raw %}}{tail}{{% endraw %}}"
        "{{ '<|im_end|>\\n' }}"
        "{% for m in messages %}{% if m.role == 'tool' %}" + results + "{% else %}<|im_start|>{{ m.role }}\n"
        f"{JOINT}{{{{ m.content }}}}{JOINT}" + calls + "{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def jointed(tokenizer: Any) -> Any:
    """`tokenizer`, with a chat template that is encoded piece by piece between its joints."""
    plain = type(tokenizer)

    class Jointed(plain):  # type: ignore[misc, valid-type]
        """Encodes as ReCall's renderer does."""

        def apply_chat_template(
            self, conversation: Any, *, tokenize: bool = True, return_dict: bool = True, **how: Any
        ) -> Any:
            """Render, then encode; only what TRL asks for."""
            batched = not isinstance(conversation[0], Mapping)
            texts = [
                super(Jointed, self).apply_chat_template(one, tokenize=False, **how)
                for one in (conversation if batched else [conversation])
            ]
            if not tokenize:
                found: list[Any] = [text.replace(JOINT, "") for text in texts]
                return found if batched else found[0]
            found = [self._encode_pieces(text) for text in texts]
            ids = found if batched else found[0]
            return {"input_ids": ids} if return_dict else ids

        def _encode_pieces(self, text: str) -> list[int]:
            backend = self.backend_tokenizer
            pieces = [piece for piece in text.split(JOINT) if piece]
            return [token for piece in pieces for token in backend.encode(piece, add_special_tokens=False).ids]

    tokenizer.__class__ = Jointed
    return tokenizer


class Episode:
    """One episode of a task; subclasses add a method for each tool."""

    _code: Any

    def reset(self, **row: Any) -> None:
        """Begin anew, with the state of the tools as it was."""
        self._tools: dict[str, Any] = {}
        exec(self._code, self._tools)

    def _call(self, name: str, arguments: Mapping[str, Any]) -> str:
        # ReCall shows the model what a tool raised in these words; TRL's own would be another prompt.
        try:
            result = self._tools[name](**arguments)
        except (LookupError, TypeError, ValueError) as error:
            return f"error: {type(error).__name__}: {error}"
        return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def episode_class(task: Mapping[str, Any]) -> type[Episode]:
    """The environment of a task: its methods have the signatures and docstrings that TRL makes schemas of."""
    methods: dict[str, Any] = {"_code": compile(task["env"], "<world>", "exec")}
    for tool in task["tools"]:
        exec(_method(tool["name"], tool["description"], tool["parameters"]["properties"]), methods)
    methods.pop("__builtins__")
    return type("TaskEpisode", (Episode,), methods)


def _method(name: str, description: str, properties: Mapping[str, Mapping[str, str]]) -> str:
    types = {"string": "str", "integer": "int"}
    signature = "".join(f", {key}: {types[schema['type']]}" for key, schema in properties.items())
    return "\n    ".join(
        [
            f"def {name}(self{signature}):",
            f'"""{description}',
            "",
            "Args:",
            *(f"    {key}: The {key}." for key in properties),
            '"""',
            f"return self._call({name!r}, {{{', '.join(f'{key!r}: {key}' for key in properties)}}})",
        ]
    )


class Outcome:
    """ReCall's outcome reward without its partial credit, and a count of what was played."""

    __name__ = "outcome"

    def __init__(self) -> None:
        self.tokens: list[float] = []
        self.turns: list[float] = []

    def __call__(
        self, completions: Sequence[Any], completion_ids: Sequence[Any], answers: Sequence[str], **_: Any
    ) -> list[float]:
        """Score a batch."""
        count = len(completions)
        self.tokens.append(sum(map(len, completion_ids)) / count)
        self.turns.append(sum(m["role"] == "assistant" for messages in completions for m in messages) / count)
        return [self._score(messages[-1], answer) for messages, answer in zip(completions, answers, strict=True)]

    def _score(self, last: Mapping[str, Any], answer: str) -> float:
        boxed = re.findall(r"\\boxed\{([^{}]*)\}", last.get("content") or "")
        if last["role"] != "assistant" or last.get("tool_calls") or not boxed:
            return 0.0
        return 0.1 + 0.9 * float(boxed[-1].strip().casefold() == answer.casefold())


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """`function`, with the seconds of each call added to the last of `seconds`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[-1] += time.perf_counter() - began

    return call


def run(given: Mapping[str, Any]) -> dict[str, Any]:
    """Take a step that warms up, the timed ones, and one for memory."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer
    from trl.chat_template_utils import qwen3_template

    torch.set_num_threads(given["threads"])
    tokenizer = AutoTokenizer.from_pretrained(given["model"], local_files_only=True)
    tokenizer.chat_template, tokenizer.response_template = template(given["system"]), qwen3_template
    tokenizer = jointed(tokenizer)
    model: Any = AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32, local_files_only=True)
    tasks, steps, limits, reward = given["tasks"], given["repeats"] + 2, given["limits"], Outcome()
    rows = [
        {"prompt": [{"role": "user", "content": t["question"]}], "environment": t["id"], "answers": t["answer"]}
        for t in tasks
    ]
    ends: list[float] = []
    sampling = [0.0]
    peak = Peak()

    class Clock(TrainerCallback):
        """Takes the time after each step, and the memory of the last one."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """A step is done."""
            ends.append(time.perf_counter())
            sampling.append(0.0)
            if len(ends) == steps - 1:
                peak.__enter__()
            elif len(ends) == steps:
                peak.__exit__(None, None, None)

    with tempfile.TemporaryDirectory() as folder:
        batch = given["groups"] * given["group_size"]
        config = GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=given["micro_batch"],
            gradient_accumulation_steps=batch // given["micro_batch"],
            num_generations=given["group_size"],
            max_completion_length=limits["max_tokens"] - max(len(task["prompt_ids"]) for task in tasks),
            max_tool_calling_iterations=limits["max_turns"] - 1,
            generation_kwargs={"max_new_tokens": limits["max_turn_tokens"]},
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            loss_type="dapo",
            epsilon=0.2,
            epsilon_high=0.28,
            beta=0.0,
            learning_rate=1e-9,
            lr_scheduler_type="constant",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            shuffle_dataset=False,
            dataloader_pin_memory=False,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            environment_factory={task["id"]: episode_class(task) for task in tasks},
            callbacks=[Clock()],
        )
        check_prompts(tokenizer, tasks)
        model.generate = timed(model.generate, sampling)
        trainer.train()
    walls = [after - before for before, after in pairwise(ends[:-1])]
    wall_s, tokens = statistics.median(walls), statistics.median(reward.tokens[1:-1])
    return {
        "micro_batch": given["micro_batch"],
        "trajectories_per_s": batch / wall_s,
        "completion_tokens_per_s": batch * tokens / wall_s,
        "peak_mb": peak.mb,
        "grown_mb": peak.grown_mb,
        "wall_s": wall_s,
        "sampling_s": statistics.median(sampling[1 : len(walls) + 1]),
        "completion_tokens": tokens,
        "turns": statistics.median(reward.turns[1:-1]),
    }


def check_prompts(tokenizer: Any, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Raises SystemExit unless every prompt is ReCall's, token by token."""
    for task in tasks:
        kind = episode_class(task)
        instance = kind()
        tools = [
            getattr(instance, name)
            for name, _ in inspect.getmembers(kind, inspect.isfunction)
            if name != "reset" and not name.startswith("_")
        ]
        prompt = [{"role": "user", "content": task["question"]}]
        ids = tokenizer.apply_chat_template(prompt, tools=tools, add_generation_prompt=True, return_dict=False)
        if ids != task["prompt_ids"]:
            text = tokenizer.apply_chat_template(prompt, tools=tools, add_generation_prompt=True, tokenize=False)
            raise SystemExit(f"the prompt of {task['id']} differs: {text!r}, {ids}, {task['prompt_ids']}")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(json.dumps(run(json.load(file))))
