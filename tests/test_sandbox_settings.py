"""Where a run's tools run: on this machine, or on servers, as the recipe says."""

import asyncio

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("uvicorn")

from recall.environment import ToolEnvironments
from recall.errors import ConfigError
from recall.evaluation.local import SandboxSettings
from recall.sandbox.base import SessionOptions
from recall.sandbox.client import RemoteSandbox
from recall.sandbox.local import LocalSandbox
from recall.types import AssistantTurn, CallStatus, Task, ToolCall, ToolSpec

SPEC = ToolSpec("f", "", {"type": "object", "properties": {}})


async def status_of(settings: SandboxSettings, source: str) -> CallStatus:
    """What one call of an episode comes to under the settings."""
    sandbox = settings.open()
    options = SessionOptions(settings.profile, transactional=settings.transactional)
    env = ToolEnvironments(sandbox, None, options)(Task("t", "?", ("",), env=source, tools=(SPEC,)))
    await env.start()
    step = await env.step(AssistantTurn("", calls=(ToolCall("f", {}),)))
    await env.close()
    await sandbox.close()
    return step.records[0].status


async def layers_of(profile: str) -> tuple[str, ...]:
    """What this host gives to a profile."""
    sandbox = LocalSandbox()
    await sandbox.start(profile)
    layers = sandbox.isolation_of(profile)
    await sandbox.close()
    return layers


def test_tools_run_on_this_machine_unless_servers_are_named() -> None:
    assert isinstance(SandboxSettings().open(), LocalSandbox)
    assert isinstance(SandboxSettings(urls=("http://127.0.0.1:1",)).open(), RemoteSandbox)


def test_the_profile_of_the_settings_is_that_of_every_session() -> None:
    source = "def f():\n    return open('/private/tmp/a', 'w').write('x')\n"
    assert asyncio.run(status_of(SandboxSettings(), source)) is CallStatus.EXCEPTION
    writes = CallStatus.OK if "scratch" in asyncio.run(layers_of("code")) else CallStatus.EXCEPTION
    assert asyncio.run(status_of(SandboxSettings(profile="code"), source)) is writes


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(ConfigError, match="accepted are default, numpy"):
        asyncio.run(status_of(SandboxSettings(profile="fast"), "def f(): pass"))


@pytest.mark.parametrize("setting", ["require", "web"])
def test_what_servers_decide_is_refused_beside_them(setting: str) -> None:
    settings = SandboxSettings(urls=("http://127.0.0.1:1",)).model_copy(update={setting: ("fs",)})
    with pytest.raises(ConfigError, match=rf"sandbox\.{setting}"):
        settings.open()


def test_a_rule_that_cannot_be_read_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="ftp"):
        SandboxSettings(web=("ftp://example.org/",)).open()
