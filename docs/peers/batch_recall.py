"""Twenty questions, eight at once, each call within two seconds, with ReCall."""

import sys

from recall import ReCall, tool


@tool(timeout_s=2)
def get_age(name: str) -> int:
    """How old somebody is."""
    return {"Ada": 36, "Bob": 7}[name]


agent = ReCall(sys.argv[1], tools=[get_age], at_once=8)
for played in agent.batch_sync(["How old is Ada?", "How old is Bob?"] * 10):
    print(played.answer)
agent.close_sync()
