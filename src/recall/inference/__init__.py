"""A policy with tools, asked: the agent `ReCall`, the events of its episodes, and transcripts.

The same rollout as in training, without a reward.
"""

from recall.inference.agent import ReCall, ask
from recall.inference.events import CallDone, EpisodeDone, EpisodeStarted, Event, TurnDone, TurnText
from recall.inference.transcript import transcript

__all__ = [
    "CallDone",
    "EpisodeDone",
    "EpisodeStarted",
    "Event",
    "ReCall",
    "TurnDone",
    "TurnText",
    "ask",
    "transcript",
]
