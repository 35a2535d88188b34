"""What a file of an index is: its size and its checksums, so that a changed, torn or wrong file is found and named."""

import hashlib
import os
from pathlib import Path

from recall.config import Settings
from recall.errors import ConfigError

_PIECE = 64 << 10
_PIECES = 64


class FileFacts(Settings):
    """A file as it was when the index was built."""

    bytes: int
    """Its size."""
    sample: str
    """SHA-256 of 64 pieces of 64 KiB spread over it, or of the whole where it is no larger than that: milliseconds."""
    sha256: str
    """SHA-256 of the whole: minutes for the largest files, so it is compared on request."""

    @classmethod
    def of(cls, path: Path, sha256: str | None = None) -> "FileFacts":
        """The facts of a file; `sha256` saves reading it where that is known already."""
        return cls(bytes=path.stat().st_size, sample=sample_of(path), sha256=sha256 or sha256_of(path))

    def check(self, path: Path, *, verify: bool = False) -> None:
        """Refuse a file that is not the one described.

        Args:
            path: where it is.
            verify: read the whole of it, rather than 4 MiB.

        Raises:
            ConfigError: it is missing, of another size, or its bytes are others.
        """
        try:
            size = path.stat().st_size
            if size != self.bytes:
                raise ConfigError(f"{path}: has {size:,} bytes where the index was built with {self.bytes:,}")
            if sample_of(path) != self.sample or (verify and sha256_of(path) != self.sha256):
                raise ConfigError(f"{path}: its bytes are not those that the index was built with")
        except FileNotFoundError:
            raise ConfigError(f"{path}: is missing") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def sha256_of(path: Path) -> str:
    """The checksum of a whole file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sample_of(path: Path) -> str:
    """The checksum of pieces of a file, the first and the last among them."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _PIECE * _PIECES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for piece in range(_PIECES):
            file.seek((size - _PIECE) * piece // (_PIECES - 1))
            digest.update(file.read(_PIECE))
        return digest.hexdigest()
