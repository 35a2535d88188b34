"""Twenty questions, eight at once, each call within two seconds, with smolagents."""

import sys
from concurrent.futures import ThreadPoolExecutor, wait

from smolagents import OpenAIModel, ToolCallingAgent, tool


@tool
def get_age(name: str) -> int:
    """How old somebody is.

    Args:
        name: Of whom.
    """
    calls = ThreadPoolExecutor(1)
    call = calls.submit({"Ada": 36, "Bob": 7}.__getitem__, name)
    wait([call], timeout=2)
    calls.shutdown(wait=False)
    if not call.done():
        raise TimeoutError
    return call.result()


model = OpenAIModel("m", api_base=sys.argv[1], api_key="none")


def ask(question: str) -> str:
    """Ask one."""
    agent = ToolCallingAgent(tools=[get_age], model=model, verbosity_level=0)
    return agent.run(question)


with ThreadPoolExecutor(8) as room:
    for answer in room.map(ask, ["How old is Ada?", "How old is Bob?"] * 10):
        print(answer)
