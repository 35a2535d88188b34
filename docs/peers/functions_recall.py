"""Two Python functions as tools, and one question, with ReCall."""

import sys

from recall import ReCall


def get_age(name: str) -> int:
    """How old somebody is."""
    return {"Ada": 36, "Bob": 7}[name]


def get_city(name: str) -> str:
    """Where somebody lives."""
    return {"Ada": "London", "Bob": "Bern"}[name]


agent = ReCall(sys.argv[1], tools=[get_age, get_city])
print(agent.ask_sync("How old is Ada?").answer)
agent.close_sync()
