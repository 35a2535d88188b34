import asyncio
import json
import re
import shutil
import ssl
import subprocess
import sys
import time
import tracemalloc
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from posixpath import normpath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
import yarl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recall.errors import ConfigError
from recall.sandbox.egress.addresses import ScriptedResolver, SystemResolver, kind_of
from recall.sandbox.egress.broker import Broker
from recall.sandbox.egress.exchange import EgressLimits
from recall.sandbox.egress.rules import Refused, Rule, Target, find_rule
from web_server import TestServer, serving

EVERY_METHOD = "methods=GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS"
CONNECTED: list[object] = []
"""Where any socket of this process was connected to, in order; told by the interpreter itself."""
sys.addaudithook(lambda event, args: CONNECTED.append(args[1]) if event == "socket.connect" else None)


@pytest.fixture(scope="module")
def server() -> Iterator[TestServer]:
    with serving() as running:
        yield running


@pytest.fixture
def other() -> Iterator[TestServer]:
    with serving() as running:
        yield running


def question(url: str, method: str = "GET", **more: object) -> bytes:
    return json.dumps({"method": method, "url": url, **more}).encode()


def rules(*texts: str) -> list[Rule]:
    return [Rule.parse(text) for text in texts]


async def ask(broker: Broker, url: str, method: str = "GET", *, timeout_s: float = 20.0, **more: object) -> Any:
    """The answer to one request, its body unpacked."""
    answer = json.loads(await broker.answer(question(url, method, **more), timeout_s=timeout_s))
    if "body" in answer:
        answer["body"] = b64decode(answer["body"])
    return answer


async def once(texts: Sequence[str], url: str, method: str = "GET", **more: Any) -> Any:
    """The answer of a broker that serves this one request."""
    broker = Broker(rules(*texts))
    try:
        return await ask(broker, url, method, **more)
    finally:
        await broker.close()


# --- rules


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:8080/search", Rule("http", "127.0.0.1", 8080, "/search")),
        ("HTTPS://API.Example.org/v1/", Rule("https", "api.example.org", 443, "/v1/")),
        ("https://api.example.org methods=get,POST", Rule("https", "api.example.org", 443, "/", ("GET", "POST"))),
        ("http://search:80/a/../b private", Rule("http", "search", 80, "/b", allow_private=True)),
        ("http://[::0:1]:81/", Rule("http", "::1", 81)),
        ("https://bücher.example/", Rule("https", "xn--bcher-kva.example", 443)),
        (
            "https://a.example 'header=Authorization:Bearer $TOKEN' header=X-Key:${KEY}",
            Rule("https", "a.example", 443, headers=(("Authorization", "Bearer $TOKEN"), ("X-Key", "${KEY}"))),
        ),
    ],
)
def test_a_rule_is_read_into_its_parts(text: str, expected: Rule) -> None:
    assert Rule.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("example.org/search", "no absolute URL"),
        ("ftp://example.org/", "only http and https"),
        ("http://user:pw@example.org/", "user name"),
        ("http://example.org/?q=1", "no query"),
        ("http://example.org/#a", "no query or fragment"),
        ("http://2130706433/", "four decimal numbers"),
        ("http://0x7f.1/", "four decimal numbers"),
        ("http://127.1/", "four decimal numbers"),
        ("http://0177.0.0.1/", "four decimal numbers"),
        ("http://example.org./", "neither a name nor"),
        ("http://example.org:0/", "no port 0"),
        ("http://example.org:99999/", "no port 99999"),
        ("http://example.org/a%2f..", "escaped slash"),
        ("http://example.org/ methods=", "methods are some of"),
        ("http://example.org/ methods=CONNECT", "methods are some of"),
        ("http://example.org/ timeout=3", "'timeout' is not known"),
        ("http://example.org/ header=Host:evil", "no header that a rule may set"),
        ("http://example.org/ header=Transfer-Encoding:chunked", "no header that a rule may set"),
        ("http://example.org/ header=Bad name", "is not known"),
        ("http://example.org/ 'header=Bad", "No closing quotation"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)) as caught:
        Rule.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/a", True), ("/a/", True), ("/a/b", True), ("/a?q=1", True), ("/%61/b", True), ("/x/../a/b", True),
        ("/a/b/..", True), ("/a//b", True), ("/a/./b", True), ("/a;v=1", False), ("/ab", False), ("/", False),
        ("/A", False), ("//a", False), ("/a/../b", False), ("/a/%2e%2e/b", False), ("/a/.%2E/b", False),
        ("/a/b/../../c", False), ("/a/../../a/../b", False),
    ],
)  # fmt: skip
def test_a_path_is_held_against_the_prefix_at_segment_borders(path: str, allowed: bool) -> None:
    assert Rule.parse("http://h.example/a").allows("GET", Target.parse(f"http://h.example{path}")) is allowed


@pytest.mark.parametrize(
    "url",
    [
        "http://h.example/a/%252e%252e/b", "http://h.example/a/%25252e%25252e/b", "http://h.example/a/..%2fb",
        "http://h.example/a/..%5cb", "http://h.example/a/..\\b", "http://h.example/a/..;/b", "http://h.example/a/%2e.;x/b",
        "http://h.example/a/%0d%0aX:1", "http://h.example/a/\r\nX: 1", "http://h.example/a\x00", "http://h.example/a/%00",
        "http://h.example/a/%c0%ae%c0%ae/b", "http://h.example/a/%252fb", "http://h.example\\@evil.example/a",
        "http://h.example@evil.example/a", "http://h.example%40evil.example/a", "http://h.example:80@evil.example/a",
        "http://h.example:80:80/a", "http://[::1/a", "http://h..example/a", "http:///a", "http:h.example/a",
        "//h.example/a",
        "http://h.example:\uff18\uff10/a",
        "file:///etc/passwd", "gopher://h.example/a", "http://h.example/a\ud800", "", "http://",
    ],
)  # fmt: skip
def test_a_url_that_can_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        Target.parse(url)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "127.0.0.01",
        "127.0.0.1.", "\uff11\uff12\uff17.0.0.0x1", "[::ffff:127.0.0.1", "[::1%25lo]", "[fe80::1%eth0]", "1.2.3.256",
        "0",
    ],
)  # fmt: skip
def test_an_address_in_an_odd_spelling_is_refused(host: str) -> None:
    with pytest.raises(Refused):
        Target.parse(f"http://{host}/")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::7f00:1]",
        "[::1]",
        "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
        "169.254.169.254",
    ],
)
def test_an_address_that_no_rule_spells_out_is_off_the_list(host: str) -> None:
    target = Target.parse(f"http://{host}/")
    with pytest.raises(Refused, match="not among"):
        find_rule(rules("http://localhost/", "http://h.example/ private"), "GET", target)


NASTY = r"a ab / // .. . %2e %2E%2e %252e %2f %5c \ ; @ : ? # % %41 é %0a %c0%af 80 81 0x7f 127.0.0.1 [::1]"
PIECES = st.sampled_from([*NASTY.split(), "evil.example", "h.example", "H.EXAMPLE", "\r\n", "\t", " "])


@settings(max_examples=1500, deadline=None)
@given(
    st.one_of(
        st.lists(PIECES, max_size=10).map(lambda pieces: "http://h.example/a/" + "".join(pieces)),
        st.lists(PIECES, max_size=10).map(lambda pieces: "http://h.example" + "".join(pieces)),
        st.lists(PIECES, max_size=12).map(lambda pieces: "http://" + "".join(pieces)),
        st.text(max_size=40),
    )
)
@example("http://h.example/a/%2e%2e/b")
@example("http://h.example/a/é b?c d#e")
def test_whatever_is_accepted_is_under_a_rule_as_two_other_readers_see_it(url: str) -> None:
    try:
        target = Target.parse(url)
        find_rule(rules("http://h.example/a"), "GET", target)
    except Refused:
        return
    for text in (url, target.url):
        for host, port in (
            (urlsplit(text).hostname, urlsplit(text).port or 80),
            (yarl.URL(text).raw_host, yarl.URL(text).port),
        ):
            assert (host, port) == ("h.example", 80)
    for path in (yarl.URL(url).raw_path, urlsplit(target.url).path, target.path):
        assert (normpath(unquote(unquote(path))) + "/").startswith("/a/")
    assert Target.parse(target.url) == target
    assert target.url.isascii()
    assert not re.search(r"[\s\\]", target.url)


# --- addresses


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("93.184.216.34", "public"), ("2606:4700::1111", "public"), ("64:ff9b::5db8:d822", "public"),
        ("127.0.0.1", "loopback"), ("127.255.255.254", "loopback"), ("::1", "loopback"),
        ("10.1.2.3", "private"), ("172.31.0.1", "private"), ("192.168.0.1", "private"), ("100.64.0.1", "private"),
        ("fc00::1", "private"), ("64:ff9b::a00:1", "private"), ("64:ff9b::7f00:1", "loopback"),
        ("169.254.169.254", "never"), ("fd00:ec2::254", "never"), ("fe80::1", "never"), ("0.0.0.0", "never"),
        ("::", "never"), ("::1:0:0", "never"), ("4000::1", "never"),
        ("168.63.129.16", "never"), ("100.100.100.200", "never"), ("224.0.0.1", "never"), ("255.255.255.255", "never"),
        ("240.0.0.1", "never"), ("192.0.2.1", "never"), ("198.18.0.1", "never"), ("ff02::1", "never"),
        ("::ffff:127.0.0.1", "never"), ("::ffff:8.8.8.8", "never"), ("::7f00:1", "never"), ("2002:7f00:1::", "never"),
        ("2001::7f00:1", "never"), ("64:ff9b::a9fe:a9fe", "never"), ("64:ff9b:1::1", "never"), ("2001:db8::1", "never"),
    ],
)  # fmt: skip
def test_addresses_are_sorted_by_what_a_name_may_stand_for(address: str, kind: str) -> None:
    assert kind_of(ip_address(address)) == kind


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_nothing_that_the_standard_library_denies_is_public(address: Any) -> None:
    if kind_of(address) == "public":
        denials = ("is_private", "is_loopback", "is_link_local", "is_multicast", "is_reserved")
        wrapped = str(address).startswith("64:ff9b::")
        assert wrapped or [name for name in denials if getattr(address, name)] == []
        assert getattr(address, "ipv4_mapped", None) is None


async def test_the_systems_resolver_knows_this_machine() -> None:
    assert "127.0.0.1" in await SystemResolver().resolve("localhost", 80)


@pytest.mark.parametrize(
    ("rule", "addresses", "message"),
    [
        ("http://h.example:{port}/", ["127.0.0.1"], "may not reach"),
        ("http://h.example:{port}/", ["10.0.0.1"], "may not reach"),
        ("http://h.example:{port}/", ["::ffff:127.0.0.1"], "may not reach"),
        ("http://h.example:{port}/ private", ["169.254.169.254"], "may not reach"),
        ("http://h.example:{port}/ private", ["127.0.0.1", "fd00:ec2::254"], "may not reach"),
        ("http://h.example:{port}/ private", ["::ffff:127.0.0.1"], "may not reach"),
        ("http://h.example:{port}/ private", [], "cannot be resolved"),
    ],
)
async def test_a_name_that_stands_for_a_forbidden_address_is_never_connected_to(
    server: TestServer, rule: str, addresses: list[str], message: str
) -> None:
    text = rule.format(port=server.port)
    broker = Broker(rules(text), resolver=ScriptedResolver({"h.example": [addresses]} if addresses else {}))
    before = len(CONNECTED)
    answer = await ask(broker, f"http://h.example:{server.port}/echo")
    await broker.close()
    assert message in answer["error"]
    assert not any(address in answer["error"] for address in addresses)
    assert CONNECTED[before:] == []


async def test_a_name_is_resolved_once_a_connection_and_judged_each_time(server: TestServer) -> None:
    resolver = ScriptedResolver({"h.example": [["127.0.0.1"], ["169.254.169.254"]]})
    broker = Broker(rules(f"http://h.example:{server.port}/ private"), resolver=resolver)
    before = len(CONNECTED)
    url = f"http://h.example:{server.port}"
    assert (await ask(broker, f"{url}/echo"))["status"] == 200
    # The connection is pooled: what was judged is still what is connected.
    assert (await ask(broker, f"{url}/echo"))["status"] == 200
    assert resolver.asked == ["h.example"]
    # This one ends it.
    assert (await ask(broker, f"{url}/hangup", "POST"))["kind"] == "failed"
    assert (await ask(broker, f"{url}/echo"))["kind"] == "refused"
    await broker.close()
    assert CONNECTED[before:] == [("127.0.0.1", server.port)]
    assert resolver.asked == ["h.example"] * 2


async def test_localhost_may_be_named_and_stands_for_nothing_but_loopback(server: TestServer) -> None:
    for addresses, expected in ((["127.0.0.1"], 200), (["10.0.0.1"], None), (["93.184.216.34"], None)):
        broker = Broker(
            rules(f"http://localhost:{server.port}/"), resolver=ScriptedResolver({"localhost": [addresses]})
        )
        assert (await ask(broker, f"http://localhost:{server.port}/echo")).get("status") == expected
        await broker.close()


# --- what is sent, what comes back


async def test_a_request_goes_out_whole_and_its_answer_comes_back_whole(server: TestServer) -> None:
    answer = await once(
        [f"{server.base}/echo {EVERY_METHOD}"],
        f"{server.base}/echo/%7ex/é?q=a%0Ab c#fragment",
        "put",
        headers={"X-One": "1", "content-type": "text/x"},
        body=b64encode(b"\x00\xff").decode(),
    )
    said = json.loads(answer["body"])
    assert (answer["status"], answer["reason"]) == (200, "OK")
    assert answer["url"] == f"{server.base}/echo/~x/%C3%A9?q=a%0Ab%20c"
    assert (said["method"], said["target"], said["body"]) == ("PUT", "/echo/~x/%C3%A9?q=a%0Ab%20c", "\x00\xff")
    assert said["headers"] == {
        "host": f"127.0.0.1:{server.port}", "x-one": "1", "content-type": "text/x", "content-length": "2",
        "accept-encoding": "gzip, deflate",
    }  # fmt: skip
    assert ["Content-Type", "application/json"] in answer["headers"]


async def test_a_backslash_is_escaped_in_a_query_and_refused_elsewhere(server: TestServer) -> None:
    answer = await once([server.base], f"{server.base}/echo?q=\\@evil.example")
    assert json.loads(answer["body"])["target"] == "/echo?q=%5C@evil.example"


async def test_headers_that_frame_the_request_are_not_taken_from_the_tool(server: TestServer) -> None:
    framing = ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Authorization", "TE"]
    framing += ["Proxy-Connection", "Trailer", "Upgrade", "Expect", "X-Named"]
    framing += ["X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL"]
    headers = {**dict.fromkeys(framing, "7"), "Connection": "close, x-named", "X-Kept": "yes"}
    answer = await once(
        [server.base], f"{server.base}/echo", "POST", headers=headers, body=b64encode(b"hello").decode()
    )
    said = json.loads(answer["body"])
    assert said["body"] == "hello"
    assert said["headers"] == {
        "host": f"127.0.0.1:{server.port}", "content-length": "5", "x-kept": "yes", "accept-encoding": "gzip, deflate",
    }  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nEvil: 1"},
        {"X": "a\nb"},
        {"X": "a\0"},
        {"X\r\nEvil": "1"},
        {"X:": "1"},
        {"": "1"},
        {"X": 1},
        {"X": "é"},
        ["X"],
    ],
)
async def test_a_header_that_could_break_out_is_refused(server: TestServer, headers: object) -> None:
    before = len(server.seen)
    answer = await once([server.base], f"{server.base}/echo", headers=headers)
    assert answer["kind"] == "malformed"
    assert server.seen[before:] == []


async def test_a_secret_header_is_the_servers_and_goes_to_its_rule_alone(server: TestServer, other: TestServer) -> None:
    texts = (f"{server.base}/echo header=X-Key:$KEY", f"{server.base}/redirect header=X-Key:$KEY", f"{other.base}/echo")
    broker = Broker(rules(*texts), environment={"KEY": "hush-hush"})
    direct = await ask(broker, f"{server.base}/echo", headers={"x-key": "mine"})
    away = await ask(broker, f"{server.base}/redirect/302?to={other.base}/echo", headers={"Authorization": "Basic x"})
    shown = f"{broker!r} {vars(broker)['_rules']!r} {broker.requests!r}"
    await broker.close()
    assert json.loads(direct["body"])["headers"]["x-key"] == "hush-hush"
    assert away["url"] == f"{other.base}/echo"
    assert {"x-key", "authorization"}.isdisjoint(json.loads(away["body"])["headers"])
    assert "hush-hush" not in shown


@pytest.mark.parametrize("value", [None, "a\r\nEvil: 1", "é"])
def test_a_secret_that_is_missing_or_no_header_is_the_users_error(value: str | None) -> None:
    environment = {} if value is None else {"KEY": value}
    with pytest.raises(ConfigError) as caught:
        Broker(rules("https://h.example/ header=X-Key:$KEY"), environment=environment)
    assert value is None or value not in str(caught.value)


async def test_proxies_of_the_environment_are_ignored_and_cookies_forgotten(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    broker = Broker(rules(server.base))
    assert ["Set-Cookie", "a=b"] in (await ask(broker, f"{server.base}/headers"))["headers"]
    said = json.loads((await ask(broker, f"{server.base}/echo"))["body"])
    await broker.close()
    assert "cookie" not in said["headers"]


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (303, "PUT", "GET"), (301, "PUT", "PUT"),
        (307, "POST", "POST"), (308, "PUT", "PUT"), (302, "HEAD", "HEAD"), (303, "GET", "GET"),
    ],
)  # fmt: skip
async def test_redirects_change_the_method_as_browsers_do(
    server: TestServer, status: int, method: str, then: str
) -> None:
    before = len(server.seen)
    body = None if method in ("GET", "HEAD") else b64encode(b"x").decode()
    answer = await once([f"{server.base} {EVERY_METHOD}"], f"{server.base}/redirect/{status}", method, body=body)
    assert [seen.partition(" ")[0] for seen in server.seen[before:]] == [method, then]
    assert answer["history"] == [[status, f"{server.base}/redirect/{status}"]]
    if then != "HEAD":
        assert json.loads(answer["body"])["body"] == ("x" if then == method and body else "")


@pytest.mark.parametrize(
    "to",
    [
        "http://127.0.0.1:{other}/echo", "//127.0.0.1:{other}/echo", "http://169.254.169.254/", "http://[::ffff:127.0.0.1]/",
        "http://2130706433:{port}/echo", "/off", "../off", "http://x@127.0.0.1:{port}/echo", "\\\\127.0.0.1:{other}\\",
        "file:///etc/passwd", "http://[", "/echo/%2e%2e/off", "http://localhost:{port}/echo",
    ],
)  # fmt: skip
async def test_a_redirect_off_the_list_is_refused(server: TestServer, other: TestServer, to: str) -> None:
    target = quote(to.format(other=other.port, port=server.port))
    broker = Broker(rules(f"{server.base}/redirect", f"{server.base}/echo"))
    before, connected = len(server.seen), len(CONNECTED)
    answer = await ask(broker, f"{server.base}/redirect/302?to={target}")
    await broker.close()
    assert answer["kind"] == "refused"
    assert (len(server.seen) - before, other.seen) == (1, [])
    assert CONNECTED[connected:] == [("127.0.0.1", server.port)]


async def test_redirects_end_after_five_and_may_be_left_to_the_tool(server: TestServer) -> None:
    endless = f"{server.base}/redirect/307?to={server.base}/redirect/307%3Fto=/redirect/307"
    broker = Broker(rules(server.base), limits=EgressLimits(redirects=1))
    too_many = await ask(broker, endless)
    left = await ask(broker, endless, follow=False)
    await broker.close()
    assert (too_many["kind"], left["status"]) == ("redirects", 307)


@pytest.mark.parametrize(
    ("route", "kind", "message"),
    [
        ("huge", "too_large", "longer than 1048576"), ("endless", "too_large", "longer than 1048576"),
        ("packed/bomb", "too_large", "longer than 1048576"), ("packed/broken", "failed", "cannot be unpacked"),
        ("garbage", "failed", "not HTTP"), ("short", "failed", "broke off"), ("hangup", "failed", "closed before"),
        ("manyheaders", "failed", ""), ("longheaders", "failed", "too long"),
    ],
)  # fmt: skip
async def test_what_a_bad_server_sends_is_cut_off_and_said(
    server: TestServer, route: str, kind: str, message: str
) -> None:
    server.sent_bytes = 0
    await once([server.base], f"{server.base}/echo")
    tracemalloc.start()
    answer = await once([server.base], f"{server.base}/{route}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer["kind"] == kind
    assert message in answer["error"]
    assert server.sent_bytes < 64 << 20
    assert peak < 32 << 20


@pytest.mark.parametrize("route", ["drip", "headdrip", "slow/20"])
async def test_a_slow_server_is_given_up_at_the_deadline(server: TestServer, route: str) -> None:
    for timeout_s, own in ((0.4, None), (20.0, 0.4)):
        began = time.monotonic()
        answer = await once([server.base], f"{server.base}/{route}", timeout_s=timeout_s, timeout=own)
        assert answer == {"error": "no full answer within 0.4 s", "kind": "timeout"}
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("route", ["gzip", "twice", "padded", "deflate", "raw"])
async def test_compression_is_undone_where_asked(server: TestServer, route: str) -> None:
    text = "packed Grüße ".encode() * (100 if route == "twice" else 50)
    plain = await once([server.base], f"{server.base}/packed/{route}")
    raw = await once([server.base], f"{server.base}/packed/{route}", decode=False)
    assert plain["body"] == text
    assert raw["body"] != text


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestServer, Path]]:
    """A server behind a certificate of its own making for `localhost`, and the certificate."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("making a certificate needs openssl")
    folder = tmp_path_factory.mktemp("certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    making = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost -addext"
    command = [openssl, *making.split(), "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(context) as running:
        yield running, certificate


async def test_a_certificate_that_nobody_vouches_for_is_refused(encrypted: tuple[TestServer, Path]) -> None:
    server, _ = encrypted
    url = f"https://localhost:{server.port}"
    answer = await once([url], f"{url}/echo")
    assert (answer["kind"], server.seen) == ("certificate", [])


def test_a_certificate_is_held_against_the_name_in_the_url(encrypted: tuple[TestServer, Path]) -> None:
    server, certificate = encrypted
    program = """
import asyncio, json, sys
from recall.sandbox.egress.broker import Broker
from recall.sandbox.egress.rules import Rule
async def main():
    for host in ("localhost", "127.0.0.1"):
        url = f"https://{host}:{sys.argv[1]}/status/200"
        broker = Broker([Rule.parse(url)])
        answer = json.loads(await broker.answer(json.dumps({"method": "GET", "url": url}).encode(), timeout_s=20))
        await broker.close()
        print(answer.get("status") or answer["kind"])
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(server.port)],
        env={"SSL_CERT_FILE": str(certificate)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout.split(), done.stderr) == (["200", "certificate"], "")


async def test_requests_at_once_are_bounded(other: TestServer) -> None:
    broker = Broker(rules(other.base), limits=EgressLimits(concurrency=2))
    answers = await asyncio.gather(*[ask(broker, f"{other.base}/slow/0.1") for _ in range(8)])
    await broker.close()
    assert [answer["status"] for answer in answers] == [200] * 8
    assert other.most_at_once == 2
    assert broker.in_flight == 0


async def test_connections_are_kept_for_the_next_request(server: TestServer) -> None:
    broker = Broker(rules(server.base))
    before = len(CONNECTED)
    for _ in range(5):
        assert (await ask(broker, f"{server.base}/echo"))["status"] == 200
    await broker.close()
    assert len(CONNECTED) - before == 1


async def test_requests_are_counted_by_host_and_outcome_without_labels_of_the_tools_choice(server: TestServer) -> None:
    broker = Broker(rules(server.base))
    for url in (f"{server.base}/echo", f"{server.base}/status/404", "http://made-up.example/", "nonsense"):
        await ask(broker, url)
    await broker.answer(b"{", timeout_s=1)
    waiting = asyncio.create_task(ask(broker, f"{server.base}/slow/20"))
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await broker.close()
    host = "127.0.0.1"
    assert broker.requests == {
        (host, "200"): 1, (host, "404"): 1, ("", "refused"): 2, ("", "malformed"): 1, (host, "cancelled"): 1,
    }  # fmt: skip
    assert set(broker.duration_ms) == {host, ""}


async def test_a_closed_broker_answers_that_it_failed(server: TestServer) -> None:
    broker = Broker(rules(server.base))
    under_way = asyncio.create_task(ask(broker, f"{server.base}/slow/20"))
    await asyncio.sleep(0.2)
    await broker.close()
    await broker.close()
    assert (await under_way)["kind"] == "failed"
    assert (await ask(broker, f"{server.base}/echo"))["kind"] == "failed"


def test_a_broker_goes_on_in_another_event_loop(server: TestServer) -> None:
    broker = Broker(rules(server.base))

    async def one(path: str) -> Any:
        answer = await ask(broker, server.base + path)
        return answer.get("status", answer.get("kind"))

    async def last(path: str) -> Any:
        try:
            return await one(path)
        finally:
            await broker.close()

    # Its server ends the first connection, so that none is left over when the loop ends.
    assert asyncio.run(one("/hangup")) == "failed"
    assert asyncio.run(last("/echo")) == 200


def test_rules_for_one_host_agree_on_private() -> None:
    with pytest.raises(ConfigError, match="all or none"):
        Broker(rules("http://h.example/a private", "http://h.example/b"))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def hostile_ask(server: TestServer) -> Iterator[Callable[[bytes], Any]]:
    loop = asyncio.new_event_loop()
    broker = Broker(rules(f"{server.base}/echo"), limits=EgressLimits(timeout_s=10))
    yield lambda body: json.loads(loop.run_until_complete(broker.answer(body, timeout_s=10)))
    loop.run_until_complete(broker.close())
    loop.close()


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_any_bytes_are_answered_and_lead_nowhere_off_the_list(
    hostile_ask: Callable[[bytes], Any], server: TestServer, data: st.DataObject
) -> None:
    urls = st.sampled_from(
        [f"{server.base}/echo", f"{server.base}/echo/../off", "http://127.0.0.1:1/echo", "http://[::1]/"]
    )
    fields = st.fixed_dictionaries(
        {"method": st.sampled_from(["GET", "POST", "CONNECT", "TRACE", "GET /off"]) | JSON, "url": urls | JSON},
        optional=dict.fromkeys(("headers", "body", "timeout", "follow", "decode"), JSON),
    )
    body = data.draw(
        st.binary(max_size=64)
        | JSON.map(lambda value: json.dumps(value).encode())
        | fields.map(lambda value: json.dumps(value).encode())
    )
    before, seen = len(CONNECTED), len(server.seen)
    answer = hostile_ask(body)
    assert "error" in answer or answer["status"] == 200
    assert set(CONNECTED[before:]) <= {("127.0.0.1", server.port)}
    assert all(re.fullmatch(r"(GET|POST) /echo(/\S*)?", line) for line in server.seen[seen:])


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b'{"method":"GET"}',
        b'{"a":1' + b" " * (1 << 20),
        b'{"method":"GET","url":1e999}',
    ],
)
async def test_a_question_that_is_none_gets_an_error_for_an_answer(body: bytes) -> None:
    answer = json.loads(await Broker(()).answer(body, timeout_s=5))
    assert answer["kind"] == "malformed"


async def test_without_a_rule_nothing_is_reached(server: TestServer) -> None:
    before = len(CONNECTED)
    answer = await once([], f"{server.base}/echo")
    assert answer["error"] == f"GET {server.base}/echo is not among what tools may reach"
    assert CONNECTED[before:] == []
