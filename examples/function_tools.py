"""Python functions as tools: schemas are read from signatures and docstrings.

`python examples/function_tools.py [MODEL]`, where MODEL is nano (the policy that comes with ReCall), a directory,
or the address of a server such as http://127.0.0.1:8000/v1.
"""

import asyncio
import sys

from recall import ReCall, tool

SUPPLIERS = {"Kizedi": "Tota", "Tota": "Gebe"}


@tool(idempotent=True, timeout_s=2)
def lookup_supplier(name: str) -> str:
    """Supplier of a company."""
    return SUPPLIERS[name]


class Branches:
    """A class is tools with a state: each episode gets an instance of its own."""

    def __init__(self) -> None:
        self.asked = 0

    def lookup_branch(self, subject: str) -> str:
        """Branch of a company."""
        self.asked += 1
        return {"Kizedi": "Falo", "Tota": "Sigi"}[subject]


async def main(model: str = "nano") -> None:
    """Ask two questions at once."""
    async with ReCall(policy=model, tools=[lookup_supplier, Branches]) as agent:
        for played in await agent.batch(["Find Kizedi's branch.", "Find Tota's supplier."]):
            for call in played.calls:
                print(f"{call.name}({dict(call.arguments)}) -> {call.result} in {1000 * call.duration_s:.1f} ms")
            print("answer:", played.answer)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
