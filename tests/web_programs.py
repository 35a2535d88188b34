"""Small programs that the real `requests` and `urllib` run as well as their stand-ins, and must see the same by.

A program has `base`, the URL of a server of `web_server.py`, `encoded`, its routes of that name, and what `PRELUDE`
defines.
"""

# What ours cannot or need not share with the real library; bodies are compared themselves.
TRIVIA = {"user-agent", "connection", "accept-encoding", "host", "content-length"}


def _programs(text: str) -> dict[str, str]:
    """Programs by the name above each."""
    return dict(part.split("\n", 1) for part in text.split("## ")[1:])


PRELUDE = """
import json, requests, urllib.request, urllib.error, urllib.parse
from urllib.request import urlopen, Request

def show(*values):
    seen.append(values)

def said(body):
    echoed = json.loads(body)
    echoed["headers"] = {k: v for k, v in echoed["headers"].items() if k not in trivia}
    seen.append(echoed)

def see(r):
    show(r.status_code, r.ok, r.reason, r.url, r.headers.get("Content-Type"), r.encoding)
    if "/echo" in r.url and r.content and r.status_code == 200:
        said(r.content)
    else:
        seen.append(r.content)

def family(kind):
    return [base.__name__ for base in kind.__mro__]

def catch(run, text=True):
    try:
        seen.append(run())
    except Exception as error:
        named = type(error).__module__ + "." + type(error).__name__
        seen.append((named, str(error) if text else None, isinstance(error, OSError), isinstance(error, ValueError)))
"""

REQUESTS = _programs(r'''
## get
r = requests.get(base + "/echo/a b/é", params={"q": "a b&c", "l": [1, 2], "n": None, "u": "é"})
see(r)

## query of its own
see(requests.get(base + "/echo?a=1#frag".split("#")[0], {"b": 2}))
see(requests.get(base + "/echo?a=1", params="c=3&d"))

## pairs
see(requests.get(base + "/echo", params=[("a", 1), ("a", 2), ("b", True)]))

## post json
see(requests.post(base + "/echo", json={"a": [1, "é", None]}))
see(requests.post(base + "/echo", json=[]))

## post form
see(requests.post(base + "/echo", data={"a": "x y", "b": ["1", "2"]}))
see(requests.post(base + "/echo", [("k", "v")]))

## post text
see(requests.post(base + "/echo", data="plain é"))
see(requests.post(base + "/echo", data=b"bytes \x00"))

## post nothing
see(requests.post(base + "/echo"))
see(requests.post(base + "/echo", data={}, json={"j": 1}))

## verbs
for verb in ("put", "patch", "delete", "options", "head"):
    see(getattr(requests, verb)(base + "/echo"))
see(requests.request("get", base + "/echo"))

## headers
see(requests.get(base + "/echo", headers={"X-One": "1", "x-two": b"2", "Accept": None}))

## session
s = requests.Session()
s.headers.update({"X-S": "s", "X-T": "t"})
s.params = {"p": "1"}
with s:
    see(s.get(base + "/echo", headers={"x-s": "mine", "X-T": None}, params={"q": 2}))

## login
from requests.auth import HTTPBasicAuth
see(requests.get(base + "/echo", auth=("user", "pä")))
see(requests.get(base + "/echo", auth=HTTPBasicAuth("u", "p")))

## cookies
see(requests.get(base + "/echo", cookies={"a": "1", "b": "2"}))

## request
r = requests.post(base + "/echo", json={"a": 1})
show(r.request.method, r.request.url, r.request.body, r.request.headers["content-type"])

## status
for n in (200, 201, 204, 400, 404, 429, 500, 503):
    r = requests.get(f"{base}/status/{n}")
    see(r)
    show(bool(r), repr(r), n == requests.codes.ok)
    catch(r.raise_for_status)

## codes
show(requests.codes.ok, requests.codes.NOT_FOUND, requests.codes["too_many_requests"], requests.codes.server_error)

## fault
try:
    requests.get(base + "/status/404").raise_for_status()
except requests.exceptions.HTTPError as e:
    show(e.response.status_code, e.response.text, e.request.method, e.errno)

## redirect
for n in (301, 302, 303, 307, 308):
    for verb in ("get", "post", "head"):
        r = getattr(requests, verb)(f"{base}/redirect/{n}")
        see(r)
        show([(h.status_code, h.url) for h in r.history])

## redirect left
r = requests.get(base + "/redirect/302", allow_redirects=False)
see(r)
show(r.is_redirect, r.headers["location"])

## encodings
for n in encoded:
    r = requests.get(f"{base}/encoded/{n}")
    show(n, r.encoding, r.content, r.text if r.encoding else "")

## own encoding
r = requests.get(base + "/encoded/unsaid")
r.encoding = "utf-8"
show(r.text)

## json
for n in encoded:
    catch(lambda: requests.get(f"{base}/encoded/{n}").json())

## json kinds
try:
    requests.get(base + "/encoded/quoted").json()
except ValueError as e:
    show(isinstance(e, requests.JSONDecodeError), isinstance(e, json.JSONDecodeError), e.pos, e.doc, str(e))

## packed
for n in ("gzip", "twice", "padded", "deflate", "raw"):
    show(requests.get(f"{base}/packed/{n}").text)

## header of answer
h = requests.get(base + "/headers").headers
show(h["x-twice"], h.get("X-TWICE"), "X-Latin" in h, h["x-latin"], h.get("no"), h["content-length"])

## missing header
catch(lambda: requests.get(base + "/headers").headers["no-such"])

## pieces
r = requests.get(base + "/status/200")
show(list(r.iter_content(4)), list(r.iter_lines()), list(r.iter_lines(decode_unicode=True)), list(r))
show(list(requests.get(base + "/status/200", stream=True).iter_content(3)))

## with
with requests.get(base + "/status/200") as r:
    show(r.text)

## elapsed
show(0 <= requests.get(base + "/status/200").elapsed.total_seconds() < 60)

## no server
catch(lambda: requests.get("http://127.0.0.1:1/"), text=False)

## broken off
catch(lambda: requests.get(base + "/hangup"), text=False)

## late
try:
    requests.get(base + "/slow/3", timeout=0.3)
except requests.Timeout as e:
    show(type(e).__name__, isinstance(e, requests.exceptions.ReadTimeout))

## late pair
try:
    requests.get(base + "/slow/3", timeout=(0.2, 0.2))
except requests.exceptions.RequestException as e:
    show(type(e).__name__)

## no scheme
for u in ("example.org/x", "//example.org", "/x", ""):
    catch(lambda: requests.get(u))

## bad scheme
for u in ("ftp://example.org/", "localhost:80/x", "file:///etc/passwd"):
    catch(lambda: requests.get(u))

## no host
for u in ("http://", "http:///x", "http://?q"):
    catch(lambda: requests.get(u), text=False)

## bad headers
for v in (1, None, "a\r\nb: c", " lead", "a\nb"):
    catch(lambda: requests.get(base + "/echo", headers={"X": v}).status_code, text=False)

## no json
catch(lambda: requests.post(base + "/echo", json={"a": float("nan")}))
catch(lambda: requests.post(base + "/echo", json={"a": {1}}))

## endless redirects
catch(lambda: requests.get(base + "/loop"), text=False)

## errors
for n in """HTTPError ConnectionError Timeout ConnectTimeout ReadTimeout SSLError ProxyError RetryError InvalidURL
        JSONDecodeError ChunkedEncodingError MissingSchema InvalidHeader TooManyRedirects""".split():
    show(n, family(getattr(requests.exceptions, n)))

## quote
from requests.utils import quote
from requests.compat import urljoin
show(quote("a b/é"), urljoin("http://a/b", "c"))

## dict
from requests.structures import CaseInsensitiveDict as D
d = D(A=1)
d["a"] = 2
d["B"] = 3
show(dict(d), len(d), "b" in d, list(d.items()), d == {"a": 2, "b": 3}, repr(d), d.pop("B"), d.copy() == d)
''')

URLLIB = _programs(r"""
## get
with urlopen(base + "/echo?q=a%20b") as r:
    show(r.status, r.code, r.getcode(), r.geturl(), r.reason, r.msg)
    said(r.read())

## read
r = urlopen(base + "/status/200")
show(r.read(3), r.readline(), r.read(), r.read(), r.headers["CONTENT-TYPE"])

## lines
show(list(urlopen(base + "/status/200")), urlopen(base + "/status/200").readlines())

## json
show(json.load(urlopen(base + "/encoded/json")))

## post
r = urlopen(base + "/echo", data=b"a=1")
said(r.read())
q = Request(base + "/echo", data=json.dumps({"a": 1}).encode(), headers={"Content-Type": "application/json"})
said(urlopen(q).read())

## method
said(urlopen(Request(base + "/echo", method="DELETE")).read())
said(urlopen(Request(base + "/echo", b"x", method="PUT")).read())

## headers
q = Request(base + "/echo", headers={"x-one-two": "1"})
q.add_header("X-B", "b")
show(q.get_header("X-one-two"), q.has_header("X-b"), sorted(q.header_items()))
said(urlopen(q).read())

## request
q = Request("http://h.example:81/a?b=c#d")
show(q.full_url, q.get_full_url(), q.host, q.type, q.selector, q.data, q.get_method(), q.fragment)

## request with data
q = Request("http://h.example", data=b"x")
show(q.get_method(), q.host, q.data)

## answer
h = urlopen(base + "/headers").headers
show(h.get("X-Twice"), h.get_all("x-twice"), h["nope"], "x-latin" in h, h.get("nope", 7), h.get_all("nope"))

## info
i = urlopen(base + "/encoded/quoted").info()
show(i.get_content_type(), i.get_content_charset(), i["Content-Length"])
i = urlopen(base + "/encoded/bytes").info()
show(i.get_content_type(), i.get_content_charset())

## getheader
r = urlopen(base + "/headers")
show(r.getheader("X-Twice"), r.getheader("no", 1), ("X-Twice", "one") in r.getheaders())

## status
for n in (400, 404, 500):
    try:
        urlopen(f"{base}/status/{n}")
    except urllib.error.HTTPError as e:
        show(e.code, e.status, e.reason, e.msg, str(e), repr(e), e.read())
        show(e.headers["content-type"], e.geturl(), e.getcode(), e.filename, e.url)

## status kinds
catch(lambda: urlopen(base + "/status/404"))

## status is an answer
try:
    urlopen(base + "/status/404")
except urllib.error.URLError as e:
    with e:
        show(e.info()["Content-Type"], e.reason, e.readlines())

## redirect
for n in (301, 302, 303, 307):
    r = urlopen(f"{base}/redirect/{n}")
    show(r.geturl(), r.status)
    said(r.read())

## redirect post
for n in (301, 302, 303):
    r = urlopen(f"{base}/redirect/{n}", b"x")
    show(r.geturl())
    said(r.read())

## packed is left
import gzip
r = urlopen(Request(base + "/packed/gzip", headers={"Accept-Encoding": "gzip"}))
show(r.headers["content-encoding"], gzip.decompress(r.read()))

## text for data
catch(lambda: urlopen(base + "/echo", data="text"), text=False)

## no server
catch(lambda: urlopen("http://127.0.0.1:1/"), text=False)

## no type
for u in ("nonsense", "/x", ""):
    catch(lambda: urlopen(u))

## bad type
catch(lambda: urlopen("gopher://h.example/"))
catch(lambda: urlopen("http:///x"))

## late
try:
    urlopen(base + "/slow/3", timeout=0.3)
except TimeoutError as e:
    show(type(e).__name__)

## opener
o = urllib.request.build_opener()
o.addheaders = [("X-Opener", "yes")]
said(o.open(base + "/echo").read())
urllib.request.install_opener(o)
said(urlopen(base + "/echo").read())
urllib.request.install_opener(urllib.request.build_opener())

## errors
show(issubclass(urllib.error.HTTPError, urllib.error.URLError), issubclass(urllib.error.URLError, OSError))
catch(lambda: (_ for _ in ()).throw(urllib.error.URLError("why")))

## parse
show(urllib.request.quote("a b"), urllib.parse.urlencode({"a": "b c"}), urllib.parse.urljoin("http://a/b", "c"))

## iterate
import io
show(io.TextIOWrapper(urlopen(base + "/encoded/json"), "utf-8").read())
""")
