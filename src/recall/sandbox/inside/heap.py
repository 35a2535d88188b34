"""The zygote's heap, laid out so that forks have little to copy.

A fork shares every page until one of the two writes to it; then that page, 4 KiB, is copied, which takes longer than
most of what a tool does. Whatever a child allocates would go to the holes that imports have left all over the heap, a
page copied for each. So the holes are filled before the first fork, with bytes that nobody reads: what comes after lies
together on pages of its own.
"""

import gc
from collections.abc import Iterator

from . import kernel

_BLOCK_STEP, _LARGEST_BLOCK = 16, 512
"""Python's own allocator serves blocks of up to 512 bytes, each size from pools of its own."""
_POOL_BYTES, _POOL_HEADER_BYTES = 1 << 14, 48
_CHUNKS = (32768, 16384, 8192, 4096, 2048, 1024, 768, 544)
"""Sizes of larger objects, which the C library serves."""
_BYTES_HEADER = 33
_MOST_BYTES = 4 << 20
"""More than any heap's holes; what stops the filling where another allocator is at work."""


def settle() -> object:
    """Let go of what is free, fill the holes and take everything that is there out of the collector's sight.

    Returns:
        What fills the holes; they stay filled as long as it is kept.
    """
    gc.collect()
    kernel.libc.malloc_trim(0)
    filling = [*_large(), *_small()]
    gc.freeze()
    return filling


def _large() -> Iterator[bytes]:
    """Objects in all holes below the end of the C library's heap."""
    end = id(bytes(2 * _CHUNKS[0]))
    room = _MOST_BYTES
    for size in _CHUNKS:
        while id(each := bytes(size - _BYTES_HEADER)) < end and (room := room - size) > 0:
            yield each


def _small() -> Iterator[object]:
    """Objects in all pools that are partly used: until one of them is the first of a pool."""
    room = _MOST_BYTES
    for size in range(_BLOCK_STEP, _LARGEST_BLOCK + 1, _BLOCK_STEP):
        while id(each := _of(size)) % _POOL_BYTES != _POOL_HEADER_BYTES and (room := room - size) > 0:
            yield each


def _of(size: int) -> object:
    """Something that takes a block of `size` bytes and that the collector does not track."""
    if size == _BLOCK_STEP:
        return object()
    if size < _BYTES_HEADER:
        return float(str(size))
    return bytes(size - _BYTES_HEADER)
