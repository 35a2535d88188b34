"""Two Python functions as tools, and one question, with LangGraph."""

import sys

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI


def get_age(name: str) -> int:
    """How old somebody is."""
    return {"Ada": 36, "Bob": 7}[name]


def get_city(name: str) -> str:
    """Where somebody lives."""
    return {"Ada": "London", "Bob": "Bern"}[name]


model = ChatOpenAI(model="m", base_url=sys.argv[1], api_key="none")
agent = create_agent(model, tools=[get_age, get_city])
played = agent.invoke({"messages": [{"role": "user", "content": "How old is Ada?"}]})
print(played["messages"][-1].content)
