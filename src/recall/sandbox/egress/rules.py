"""What tools may reach on the network: rules, and the one spelling of a URL that they are held against.

Without a rule there is no network. This file judges text and connects to nothing: `addresses.py` judges what a name
resolves to, `broker.py` makes the request.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import unquote

from recall.errors import ConfigError

DEFAULT_METHODS = ("GET", "HEAD", "POST")
"""What a rule allows that names no methods."""
_METHODS = frozenset((*DEFAULT_METHODS, "PUT", "PATCH", "DELETE", "OPTIONS"))
_PORTS = {"http": 80, "https": 443}

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{0,5}))?")
_NAME = re.compile(r"[a-z0-9_][a-z0-9_-]{0,62}(?:\.[a-z0-9_-]{1,63})*")
_ESCAPE = re.compile(r"(%[0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_BORDER = re.compile(r"[\x00-\x1f\x7f-\x9f\\/]")
_UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_IN_PATH = frozenset(_UNRESERVED + "!$&'()*+,;=:@")
_IN_QUERY = _IN_PATH | frozenset("/?")
_DECODINGS = 4

# No header of these names can hold a secret, or else the rule could break the framing of the request.
_HEADER = re.compile(
    r"(?!(?i:host|content-length|transfer-encoding|connection|upgrade|te|trailer|expect|keep-alive|proxy-.*):)"
    r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):([^\x00-\x1f\x7f]*)"
)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Refused(Exception):  # noqa: N818  # an outcome for the tool, not a fault
    """A URL, an address or a request is not one that tools may use; the message says why, in words for the tool."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in its one spelling: what is judged is what is sent."""

    scheme: str
    """`http` or `https`."""
    host: str
    """Lower case; IDNA for a name, the shortest spelling for an address, without brackets."""
    port: int
    path: str
    """Begins with a slash, has no `.` or `..`, escapes only what must be escaped."""
    query: str | None = None
    """Without the question mark; None where there is none."""

    @property
    def origin(self) -> str:
        """Scheme, host, and port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    @property
    def url(self) -> str:
        """The whole, as text."""
        return self.origin + self.path + ("" if self.query is None else f"?{self.query}")

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read an absolute URL; its fragment is dropped.

        Raises:
            Refused: it is no `http` or `https` URL, or one that two programs could read in two ways.
        """
        if _CONTROL.search(text):
            raise Refused("the URL holds a control character or a lone surrogate")
        if (match := _URL.fullmatch(text)) is None:
            raise Refused("that is no absolute URL")
        scheme, authority, path, query = match[1].lower(), match[2], match[3], match[4]
        if scheme not in _PORTS:
            raise Refused(f"only http and https can be used, not {scheme[:32]}")
        if "@" in authority:
            raise Refused("a URL must not hold a user name or password")
        if (parts := _AUTHORITY.fullmatch(authority)) is None:
            raise Refused("the host or port of the URL cannot be read")
        port = int(parts[2]) if parts[2] else _PORTS[scheme]
        if not 1 <= port <= 65535:
            raise Refused(f"there is no port {port}")
        query = None if query is None else _respell(query, _IN_QUERY)
        return cls(scheme, canonical_host(parts[1]), port, _canonical_path(path), query)


def canonical_host(text: str) -> str:
    """The one spelling of a host: a name in lower case and IDNA, or an address without brackets.

    Raises:
        Refused: it is neither, or an address in a spelling that only some programs know (`2130706433`, `0x7f.1`).
    """
    if text.startswith("["):
        try:
            return str(IPv6Address(text[1:-1]))
        except AddressValueError:
            raise Refused("the host is no IPv6 address") from None
    host = text.lower() if text.isascii() else _idna(text)
    if len(host) > 253 or _NAME.fullmatch(host) is None:
        raise Refused("the host is neither a name nor an address")
    last = host.rpartition(".")[2]
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        # What ends in a number is an IPv4 address to every resolver; only the plain spelling means the same to all.
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            raise Refused("an IPv4 address must be written as four decimal numbers") from None
    return host


def _idna(text: str) -> str:
    import idna  # only names beyond ASCII need its tables

    try:
        return idna.encode(text, uts46=True, transitional=False).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        raise Refused("the host is no valid international name") from None


def _respell(text: str, keep: frozenset[str]) -> str:
    """`text` with escapes in upper case, those of unreserved characters undone, and all but `keep` escaped."""
    spelled = []
    for place, part in enumerate(_ESCAPE.split(text)):
        if place % 2:
            character = chr(int(part[1:], 16))
            spelled.append(character if character in _UNRESERVED else part.upper())
        else:
            for character in part:
                if character in keep:
                    spelled.append(character)
                else:
                    spelled.extend(f"%{byte:02X}" for byte in character.encode())
    return "".join(spelled)


def _canonical_path(text: str) -> str:
    kept: list[str] = []
    segments = text.split("/")[1:] or [""]
    for place, segment in enumerate(segments):
        spelled = _respell(segment, _IN_PATH)
        _check_segment(spelled)
        if spelled == ".." and kept:
            kept.pop()
        if spelled not in (".", ".."):
            kept.append(spelled)
        elif place == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def _check_segment(spelled: str) -> None:
    """Refuse what a server that decodes once more, or strips parameters, could read as a border or a way up."""
    if ";" in spelled and spelled.partition(";")[0] in (".", ".."):
        raise Refused("the path holds dots with parameters")
    inner = spelled
    for _ in range(_DECODINGS):
        if _BORDER.search(inner):
            raise Refused("the path holds an escaped slash, backslash or control character")
        before = inner
        try:
            inner = unquote(inner, errors="strict")
        except UnicodeDecodeError:
            raise Refused("the path is not UTF-8") from None
        if inner == before:
            return
        if inner.partition(";")[0] in (".", ".."):
            raise Refused("the path holds dots that are escaped twice")
    raise Refused("the path is escaped many times over")


@dataclass(frozen=True)
class Rule:
    """One thing that tools may reach: everything at and below a path of one server, by some methods."""

    scheme: str
    host: str
    port: int
    path: str = "/"
    """The prefix, held at segment borders: `/a` allows `/a` and `/a/b`, not `/ab`; `/a/` only what is below."""
    methods: tuple[str, ...] = DEFAULT_METHODS
    allow_private: bool = False
    """Whether the host's name may stand for a private or loopback address. An address, and `localhost`, may always be
    named in a rule. Link-local addresses (cloud metadata) and the like must be named."""
    headers: tuple[tuple[str, str], ...] = ()
    """Set on each request by the server: name and text, where `$NAME` is a variable of the server's environment."""

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        try:
            target = Target.parse(f"{self.scheme}://{host}:{self.port}{self.path}")
        except Refused as refusal:
            raise ConfigError(f"egress rule for {self.host!r}: {refusal}") from None
        if (target.scheme, target.host, target.port, target.path) != (self.scheme, self.host, self.port, self.path):
            raise ConfigError(f"egress rule for {self.host!r}: must be spelled {target.url}; Rule.parse does that")
        if not self.methods or not _METHODS.issuperset(self.methods):
            raise ConfigError(f"egress rule for {self.host!r}: methods are some of {', '.join(sorted(_METHODS))}")
        for name, value in self.headers:
            if _HEADER.fullmatch(f"{name}:{value}") is None:
                raise ConfigError(f"egress rule for {self.host!r}: {name!r} is no header that a rule may set")

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Read `URL [methods=GET,POST] [private] ['header=Name:text with $VARIABLE' …]`.

        Raises:
            ConfigError: it cannot be read, or is ambiguous.
        """
        try:
            words = shlex.split(text)
        except ValueError as fault:
            raise ConfigError(f"egress rule {text!r}: {fault}") from None
        if not words:
            raise ConfigError("egress rule: empty; write a URL, such as http://127.0.0.1:8080/search")
        try:
            target = Target.parse(words[0])
        except Refused as refusal:
            raise ConfigError(f"egress rule {words[0]!r}: {refusal}") from None
        if target.query is not None or "#" in words[0]:
            raise ConfigError(f"egress rule {words[0]!r}: a rule ends with its path; it has no query or fragment")
        methods: tuple[str, ...] = DEFAULT_METHODS
        private, headers = False, []
        for word in words[1:]:
            name, equals, value = word.partition("=")
            if word == "private":
                private = True
            elif name == "methods" and equals:
                methods = tuple(dict.fromkeys(method.strip().upper() for method in value.split(",")))
            elif name == "header" and ":" in value:
                header, _, content = value.partition(":")
                headers.append((header, content.strip()))
            else:
                raise ConfigError(
                    f"egress rule {words[0]!r}: {word.partition('=')[0]!r} is not known; "
                    "a rule takes methods=GET,POST, private and header=Name:$VARIABLE"
                )
        return cls(target.scheme, target.host, target.port, target.path, methods, private, tuple(headers))

    @cached_property
    def _prefix(self) -> str:
        return unquote(self.path)

    def allows(self, method: str, target: Target) -> bool:
        """Whether a request with `method` to `target` is within this rule."""
        if (self.scheme, self.host, self.port) != (target.scheme, target.host, target.port):
            return False
        plain = unquote(target.path)
        below = plain.startswith(self._prefix if self._prefix.endswith("/") else self._prefix + "/")
        return method in self.methods and (below or plain == self._prefix)

    def secrets(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The headers of this rule, by lower-case name, with their variables filled in. Never to be logged.

        Raises:
            ConfigError: a variable is not set, or holds what no header can.
        """
        filled = {}
        for name, text in self.headers:
            for match in _VARIABLE.finditer(text):
                if (match[1] or match[2]) not in environment:
                    raise ConfigError(
                        f"egress rule for {self.host!r}: the variable {match[1] or match[2]} for {name} is not set"
                    )
            value = _VARIABLE.sub(lambda match: environment[match[1] or match[2]], text)
            if not value.isascii() or _HEADER.fullmatch(f"{name}:{value}") is None:
                raise ConfigError(f"egress rule for {self.host!r}: the value for {name} cannot stand in a header")
            filled[name.lower()] = value
        return filled


def find_rule(rules: Iterable[Rule], method: str, target: Target) -> Rule:
    """The first rule that allows the request.

    Raises:
        Refused: none does.
    """
    for rule in rules:
        if rule.allows(method, target):
            return rule
    raise Refused(f"{method} {target.origin}{target.path} is not among what tools may reach"[:500])
