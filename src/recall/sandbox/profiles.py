"""Profiles: what the tools of a session find and may use. A zygote serves one profile; nothing is enforced here."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from recall.errors import ConfigError
from recall.sandbox.limits import SandboxLimits

STANDARD_PRELOAD = ("collections", "copy", "datetime", "functools", "itertools", "math", "random", "re", "typing")
"""Modules that sessions find already imported. Others of the standard library cost the session that imports them."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of session."""

    preload: tuple[str, ...] = STANDARD_PRELOAD
    """Modules imported once, in the zygote; of the standard library or of `packages`."""
    packages: tuple[str, ...] = ()
    """Distributions beside the standard library that tools may import, with what these depend on."""
    limits: SandboxLimits = field(default_factory=SandboxLimits)
    """Of a session and a call."""
    threads: int = 8
    """Further threads that a session may start, where system calls can be filtered; elsewhere none."""
    processes: int = 0
    """Further processes that a session may start, programs included."""
    scratch_bytes: int = 0
    """Size of a private directory `/tmp`, gone with the session; 0 leaves nothing that can be written."""

    def __post_init__(self) -> None:
        foreign = [name for name in self.preload if name.partition(".")[0] not in sys.stdlib_module_names]
        if foreign and not self.packages:
            raise ConfigError(
                f"sandbox profile: preload names {foreign[0]!r}, and packages lists nothing to find it in"
            )
        for name, high in (("threads", 256), ("processes", 256), ("scratch_bytes", 1 << 34)):
            if not 0 <= (value := getattr(self, name)) <= high:
                raise ConfigError(f"sandbox profile: {name} must be from 0 to {high}, got {value}")


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "default": Profile(),
        "numpy": Profile(
            preload=(*STANDARD_PRELOAD, "numpy", "pandas"),
            packages=("numpy", "pandas"),
            limits=SandboxLimits(memory_bytes=2 << 30),
        ),
        "subprocess": Profile(
            preload=(*STANDARD_PRELOAD, "subprocess"),
            limits=SandboxLimits(memory_bytes=1 << 30, file_bytes=8 << 20),
            processes=32,
            scratch_bytes=8 << 20,
        ),
        "code": Profile(
            limits=SandboxLimits(memory_bytes=1 << 30, file_bytes=8 << 20, output_chars=1 << 20),
            scratch_bytes=16 << 20,
        ),
    }
)
"""The profiles that come with ReCall: plain tools; numpy and pandas; tools that run programs; scripts with files."""
