"""The one parser and the one formatter of tool calls, in every dialect and every model's own format.

`recall` writes JSON between `<tool_call>` tags; `research` knows one tool, whose query stands between `<search>` tags;
`families` holds what families of models write of their own accord, for the dialect `native`.

Whatever a model writes parses to a value: a call that cannot be understood is a `MalformedCall` that says why. Nothing
here knows which tools exist or checks arguments against a schema; that is the environment's work.
"""

from recall.tool_calls.families import FAMILIES, Family, family_of
from recall.tool_calls.recall import format_call, format_calls, format_results, parse_turn
from recall.tool_calls.research import SEARCH, SEARCH_END, format_search, format_search_results, parse_search_turn
from recall.tool_calls.values import MAX_DEPTH
from recall.tool_calls.xml import typed

__all__ = [
    "FAMILIES",
    "MAX_DEPTH",
    "SEARCH",
    "SEARCH_END",
    "Family",
    "family_of",
    "format_call",
    "format_calls",
    "format_results",
    "format_search",
    "format_search_results",
    "parse_search_turn",
    "parse_turn",
    "typed",
]
