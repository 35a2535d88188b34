"""Who may use a service: a token that requests bring, and the rule that only this machine is served without one."""

import base64
import binascii
import hmac
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

from recall.errors import ConfigError

_LEAST_CHARS = 16


class Token:
    """A secret that requests must bring. It is never shown, not even by its repr."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def __repr__(self) -> str:
        return "Token(...)"

    def admits(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request with these headers brings the token.

        As `Authorization: Bearer TOKEN`; or as the password of basic authentication, which is what a client that knows
        nothing but an address sends for `http://anything:TOKEN@host`.
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


def read_token(file: Path | None, variable: str) -> Token | None:
    """The token in `file`, or else in the environment variable; None where there is neither.

    Raises:
        ConfigError: the file cannot be read, or what is there is no token.
    """
    if file is None:
        where, text = variable, os.environ.get(variable, "")
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


def check_bind(host: str, address: str, token: Token | None, variable: str) -> None:
    """Refuse to listen to other machines without a token.

    Args:
        host: as the user wrote it.
        address: the IP address that it stands for.
        token: None where there is none.
        variable: the environment variable that could hold one.

    Raises:
        ConfigError: the address is not this machine's own, and there is no token.
    """
    if token is None and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise ConfigError(
            f"--host {host}: other machines could reach it; give --token-file FILE or {variable}, "
            "or listen on 127.0.0.1"
        )
