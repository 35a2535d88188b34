"""Write the tasks of every step, with their prompts as token ids, for a peer that lacks ReCall. Prints the JSON."""

import json

from parts.setting import Bench, given
from recall.renderer import default_template
from recall.types import Message


def tasks_of(bench: Bench) -> dict[str, object]:
    """What `parts.trl_step` reads, but for its own settings."""
    tasks = [task for step in range(bench.setting.repeats + 2) for task in bench.setting.tasks(step)]
    return {
        "system": default_template(),
        "limits": bench.limits.model_dump(),
        "tasks": [
            {
                "id": task.id,
                "question": task.question,
                "answer": task.ground_truth[0],
                "env": task.env,
                "tools": [
                    {"name": t.name, "description": t.description, "parameters": t.parameters} for t in task.tools
                ],
                "prompt_ids": bench.renderer.prompt((Message("user", task.question),), task.tools),
            }
            for task in tasks
        ],
    }


if __name__ == "__main__":
    print(json.dumps(tasks_of(Bench(given()))))
