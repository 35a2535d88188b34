"""The C allocator's habits in a process that computes with many short-lived tensors. It allocates nothing."""

import ctypes
import os


def calm_allocator() -> None:
    """Keep freed tensors in the process instead of returning them to the kernel after every operation.

    glibc reads this when a process starts, so it can only be set through its own call.
    """
    if os.name == "posix" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(trim_threshold, 1 << 30)
        libc.mallopt(mmap_threshold, 1 << 30)
