"""Where one process of verl plays its episodes: one sandbox client, one renderer, one record of what was played.

verl makes a new agent loop for every episode; what they share is here. It imports no verl.
"""

import asyncio
import json
import traceback
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from recall.config import load
from recall.environment import ToolEnvironments
from recall.errors import ConfigError, RolloutError
from recall.policy.stopping import StopAtText
from recall.renderer import Renderer
from recall.retriever.open import open_retriever
from recall.rollout import rollout
from recall.sandbox.base import Sandbox, SessionOptions
from recall.store import write_atomic, write_groups
from recall.tools.search import AddressedSearch, NativeSearch
from recall.trainers.recipe import TrainRecipe
from recall.trainers.shaping import reward_of
from recall.trainers.verl.named import NamedRetriever, NamedSandbox
from recall.trainers.verl.policy import ServerPolicy, Versions
from recall.types import Group, RewardResult, Sampling, StopReason, Task, Trajectory

INCOMING = "incoming"
"""The directory of a run that groups are written to as they are played, one file each."""
STOP = "stop.json"
"""The file of a run that says why it has to stop: the first failure that is not an episode's."""
_CLOSING_S = 60.0
"""Seconds beyond an episode's time-out in which its tools have to let go."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which episode it is."""

    step: int
    """The update that it is played for; in validation, the updates done."""
    group: str
    """Shared by the episodes of one task in one step."""
    number: int
    """Of the episode within its group."""
    size: int
    """Episodes of the group."""
    split: str
    """`train`, or the split that is validated on."""


@dataclass(frozen=True, slots=True)
class Played:
    """An episode, what it was worth, and which weights sampled it."""

    trajectory: Trajectory
    reward: RewardResult
    versions: Versions
    group_lost: bool
    """Whether this was the last episode of its group, and all of them failed through faults of ours."""


class Stage:
    """Plays the episodes of one process."""

    def __init__(
        self, run: Path, recipe: TrainRecipe, renderer: Renderer, policy: ServerPolicy, sandbox: Sandbox
    ) -> None:
        """Set everything up that episodes share.

        Args:
            run: the run directory, the same for all processes.
            recipe: of the run.
            renderer: of the policy's model.
            policy: samples.
            sandbox: where tools run.

        Raises:
            ConfigError: there is no such reward, or its punishment of length begins before an episode does.
        """
        self._run, self._recipe, self._renderer = run, recipe, renderer
        self._served, self._limits = policy, recipe.rollout.limits
        texts = renderer.stop_texts
        self._policy = StopAtText(policy, renderer.decode, texts) if texts else policy
        options = SessionOptions(recipe.sandbox.profile, transactional=recipe.sandbox.transactional)
        self._environments = ToolEnvironments(sandbox, self._limits, options)
        self._reward = reward_of(recipe)
        self._groups: dict[str, dict[int, tuple[Task, Trajectory, RewardResult]]] = defaultdict(dict)

    async def play(self, task: Task, place: Place, *, temperature: float, top_p: float) -> Played:
        """Play one episode and score it; when it was the last of its group, write the group.

        A fault of ours is recorded on the trajectory. Anything else that fails stops the run, which verl would not do.
        """
        try:
            return await self._play(task, place, temperature, top_p)
        except Exception as error:
            self.stop_run(error)
            raise

    def stop_run(self, error: Exception) -> None:
        """Leave word that the run has to stop, unless there is word already."""
        foreseen = isinstance(error, ConfigError)
        text = str(error) if foreseen else "".join(traceback.format_exception(error))
        path = self._run / STOP
        if not path.exists():
            word = {"user": foreseen, "message": text}
            write_atomic(path, lambda file: file.write(json.dumps(word).encode()))

    async def _play(self, task: Task, place: Place, temperature: float, top_p: float) -> Played:
        episode_id = f"{place.group}/{place.number}"
        limits = self._limits
        assert limits.episode_timeout_s is not None, "the recipe was checked for it"
        try:
            async with asyncio.timeout(limits.episode_timeout_s + _CLOSING_S):
                trajectory = await rollout(
                    self._environments(task),
                    self._policy,
                    self._renderer,
                    task_id=task.id,
                    episode_id=episode_id,
                    sampling=Sampling(temperature=temperature, top_p=top_p, max_tokens=limits.max_turn_tokens),
                    limits=limits,
                )
        except TimeoutError:
            fault = f"TimeoutError: the episode did not end within {limits.episode_timeout_s + _CLOSING_S:g} s"
            trajectory = Trajectory(task.id, (), StopReason.FAULT, fault=fault)
        versions = self._served.versions(episode_id)
        if trajectory.fault is None:
            reward = self._reward(task, trajectory)
        else:
            reward = RewardResult(0.0, correct=False, parts={"fault": 1.0})
        return Played(trajectory, reward, versions, self._took(task, place, trajectory, reward))

    def _took(self, task: Task, place: Place, trajectory: Trajectory, reward: RewardResult) -> bool:
        """Add an episode to its group; whether the group is whole and nothing in it can be learned from."""
        played = self._groups[place.group]
        played[place.number] = (task, trajectory, reward)
        if len(played) < place.size:
            return False
        del self._groups[place.group]
        episodes = [episode for _, episode in sorted(played.items())]
        lost = all(trajectory.fault is not None for _, trajectory, _ in episodes)
        if self._recipe.save_trajectories or lost:
            group = Group(task, [trajectory for _, trajectory, _ in episodes], [reward for _, _, reward in episodes])
            folder = self._run / INCOMING
            folder.mkdir(exist_ok=True)
            name = f"{place.step:06d}-{place.group}{LOST if lost else ''}.jsonl.zst"
            write_groups(folder / name, [group], step=place.step, split=place.split)
        return lost


LOST = ".lost"
"""What the name of a group's file ends in, before its suffix, when all of its episodes failed."""


class GroupLostError(RolloutError):
    """Every episode of a group failed through a fault of ours; told to verl, which may play another in its place."""


def open_stage(run: Path, servers: object, faults: tuple[type[Exception], ...]) -> Stage:
    """The stage of this process, from the run's own recipe.

    Args:
        run: the run directory.
        servers: verl's client of its servers.
        faults: what it raises when a server is to blame.

    Raises:
        ConfigError: the recipe, the model or the sandbox will not do.
    """
    from recall.trainers.verl.model import renderer_of

    recipe = load(TrainRecipe, run / "config.toml")
    renderer = renderer_of(recipe)
    policy = ServerPolicy(servers, stop_token_ids=sorted(renderer.stop_token_ids), faults=faults)  # type: ignore[arg-type]
    return Stage(run, recipe, renderer, policy, _sandbox(recipe, run))


def _sandbox(recipe: TrainRecipe, run: Path) -> Sandbox:
    """Where tools run and searches go: what the settings name, or the run's own servers on the cluster."""
    from recall.evaluation.bfcl.training.backends import BackendSandbox

    cluster, settings = recipe.cluster, recipe.sandbox
    if not cluster.sandboxes and not cluster.retrievers:
        return settings.open_all()
    from recall.trainers.verl.services import lookup, namespace_of

    namespace = namespace_of(run)
    found: Sandbox
    if cluster.sandboxes:
        found = NamedSandbox(lookup("sandbox", cluster.sandboxes, namespace))
    else:
        found = settings.model_copy(update={"search": "", "search_url": ""}).open()
    if cluster.retrievers:
        found = NativeSearch(NamedRetriever(lookup("retriever", cluster.retrievers, namespace)), found, owned=True)
    elif settings.search:
        found = NativeSearch(open_retriever(settings.search), found, owned=True)
    else:
        found = AddressedSearch(found, settings.search_url)
    return BackendSandbox(found, settings.bfcl)
