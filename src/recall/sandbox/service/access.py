"""Who may use the server: the bearer token, and the rule that nobody else's machine is listened to without one."""

import base64
import binascii
import hmac
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

from recall.errors import ConfigError

TOKEN_VARIABLE = "RECALL_SANDBOX_TOKEN"
"""The environment variable that holds the token where no file is named."""
_LEAST_CHARS = 16


class Token:
    """A secret that requests must bring. It is never shown, not even by its repr."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def __repr__(self) -> str:
        return "Token(...)"

    def admits(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request with these headers brings the token.

        `Authorization: Bearer TOKEN`; or, for clients that know only an address, the password of
        `http://anything:TOKEN@host`, which they send as `Basic`.
        """
        given = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, secret = given.partition(b" ")
        if scheme.lower() == b"basic":
            try:
                secret = base64.b64decode(secret, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != b"bearer":
            return False
        return hmac.compare_digest(secret.strip(), self._text)


def read_token(file: Path | None) -> Token | None:
    """The token in `file`, or else in the environment; None where there is neither.

    Raises:
        ConfigError: the file cannot be read, or it is no token.
    """
    if file is None:
        text, where = os.environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
        if not text:
            return None
    else:
        where = f"--token-file {file}"
        try:
            text = file.read_text(encoding="ascii")
        except OSError as error:
            raise ConfigError(f"{where}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{where}: a token is ASCII text") from None
    text = text.strip()
    if len(text) < _LEAST_CHARS or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(f"{where}: a token is one word of at least {_LEAST_CHARS} ASCII characters")
    return Token(text)


def check_bind(host: str, address: str, token: Token | None) -> None:
    """Refuse to listen to other machines without a token.

    Args:
        host: as the user wrote it.
        address: the IP address that it stands for.
        token: None where there is none.

    Raises:
        ConfigError: the address is not this machine's own, and there is no token.
    """
    if token is None and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise ConfigError(
            f"--host {host}: other machines could reach it; give --token-file FILE or {TOKEN_VARIABLE}, "
            "or listen on 127.0.0.1"
        )
