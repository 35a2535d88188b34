"""Two Python functions as tools, and one question, with the OpenAI Agents SDK."""

import sys

from agents import Agent, AsyncOpenAI, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled


@function_tool
def get_age(name: str) -> int:
    """How old somebody is."""
    return {"Ada": 36, "Bob": 7}[name]


@function_tool
def get_city(name: str) -> str:
    """Where somebody lives."""
    return {"Ada": "London", "Bob": "Bern"}[name]


set_tracing_disabled(True)
model = OpenAIChatCompletionsModel("m", AsyncOpenAI(base_url=sys.argv[1], api_key="none"))
agent = Agent("ages", model=model, tools=[get_age, get_city])
print(Runner.run_sync(agent, "How old is Ada?").final_output)
