"""Two Python functions as tools, and one question, with smolagents."""

import sys

from smolagents import OpenAIModel, ToolCallingAgent, tool


@tool
def get_age(name: str) -> int:
    """How old somebody is.

    Args:
        name: Of whom.
    """
    return {"Ada": 36, "Bob": 7}[name]


@tool
def get_city(name: str) -> str:
    """Where somebody lives.

    Args:
        name: Of whom.
    """
    return {"Ada": "London", "Bob": "Bern"}[name]


model = OpenAIModel("m", api_base=sys.argv[1], api_key="none")
agent = ToolCallingAgent(tools=[get_age, get_city], model=model, verbosity_level=0)
print(agent.run("How old is Ada?"))
