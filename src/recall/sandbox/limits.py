"""What a session in a sandbox may use. It enforces nothing: the child, the zygote and the parent do."""

from dataclasses import dataclass

from recall.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What one session, or one call of it, may use."""

    call_timeout_s: float = 5.0
    """Wall seconds of a call, where the caller gives no other; waiting for earlier calls is not counted."""
    open_timeout_s: float = 5.0
    """Wall seconds that the source may take to run; waiting for the process is not counted."""
    cpu_s: int = 30
    """CPU seconds of a session's whole life."""
    memory_bytes: int = 512 << 20
    """Address space of a session's process."""
    output_chars: int = 16_384
    """Characters of a call's printed output, and of a repr that stands in for a result."""
    result_bytes: int = 256 << 10
    """Bytes of the JSON of a result."""
    error_chars: int = 2_000
    """Characters of an error's message."""
    request_bytes: int = 1 << 20
    """Bytes of the source, and of the JSON of a call's name and arguments."""
    nofile: int = 64
    """Open descriptors of a session's process."""
    file_bytes: int = 0
    """Size of a file that it may write, where files can be written at all."""
    max_sessions: int = 1024
    """Sessions alive at once; `open` waits for room."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("call_timeout_s", 0.001, 86_400),
            ("open_timeout_s", 0.001, 86_400),
            ("cpu_s", 1, 86_400),
            ("memory_bytes", 64 << 20, 1 << 46),
            ("output_chars", 0, 1 << 24),
            ("result_bytes", 16, 1 << 26),
            ("error_chars", 16, 1 << 20),
            ("request_bytes", 1 << 10, 1 << 26),
            ("nofile", 16, 256),
            ("file_bytes", 0, 1 << 40),
            ("max_sessions", 1, 4096),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"sandbox limits: {name} must be from {low} to {high}, got {value}")

    @property
    def reply(self) -> dict[str, int]:
        """What `recall.sandbox.inside.replies.ReplyLimits` is made of."""
        return {
            "output_chars": self.output_chars,
            "result_bytes": self.result_bytes,
            "error_chars": self.error_chars,
        }

    @property
    def frame_bytes(self) -> int:
        """The longest honest reply: JSON escapes turn one character into at most six bytes."""
        return self.result_bytes + 6 * (self.output_chars + self.error_chars) + 4096
