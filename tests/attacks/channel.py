"""Attacks on the sandbox's own channel: items 20 to 25 and 63 to 70 of the design's list."""

from attacks.model import contained, group, stopped

OK = 'b\'["ok",42,"",null]\''
ENDED = "crashed"

CHANNEL = group(
    "channel",
    contained(
        "find descriptors of others",
        (20,),
        """
import stat
found = []
for fd in range(4096):
    try: found.append((fd, stat.S_IFMT(os.fstat(fd).st_mode)))
    except OSError: pass
own = {(0, stat.S_IFCHR), (1, stat.S_IFCHR), (2, stat.S_IFCHR), (3, stat.S_IFSOCK)}
# A session that can roll back has a pipe to its own copy.
others = [fd for fd, kind in set(found) - own if kind != stat.S_IFIFO or not t['copies']]
return 'ESCAPED: ' + repr(found) if others or len(found) > 5 else len(found)
""",
        "ok",
    ),
    contained(
        "write garbage to every descriptor",
        (21,),
        "for fd in range(64):\n    try: os.write(fd, b'garbage' * 9)\n    except OSError: pass",
        ENDED,
    ),
    contained("announce a giant frame", (22,), "os.write(3, b'\\xff' * 8)", ENDED),
    contained(
        "announce a giant frame and fill it",
        (22,),
        "os.write(3, b'\\xff\\xff\\xff\\xff\\0\\0\\0\\1')\nwhile True: os.write(3, b'x' * 65536)",
        ENDED,
    ),
    contained(
        "fill the largest frame with nothing that ends",
        (22,),
        "n = 1 << 22\nos.write(3, n.to_bytes(4, 'big') + b'\\0\\0\\0\\1')\nwhile True: os.write(3, b'[' * 65536)",
        "crashed timeout",
        timeout_s=0.9,
    ),
    contained(
        "flood the service's log", (25,), "for _ in range(500): os.write(1, b'x' * 65536); os.write(2, b'RECALL')", "ok"
    ),
    contained("print without end", (25,), "for _ in range(100000): print('x' * 1000)", "ok timeout"),
    contained(
        "print to what was standard output",
        (25,),
        "print('RECALL', file=sys.__stderr__, flush=True)\nprint('RECALL', file=sys.__stdout__, flush=True)",
        "ok exception",
        errors=("AttributeError", "OSError"),
    ),
    contained("forge a reply and exit", (63,), f"os.write(3, frame({OK}))\nos._exit(0)", "ok"),
    contained("forge a reply and go on", (63,), f"os.write(3, frame({OK}))\nreturn 1", "ok crashed"),
    contained("forge a reply without end", (63,), f"os.write(3, frame({OK}))\nwhile True: pass", "ok"),
    contained("forge two replies", (64,), f"os.write(3, frame({OK}) * 2)", "ok crashed"),
    contained(
        "forge a hundred thousand replies", (64,), f"for _ in range(1000): os.write(3, frame({OK}) * 100)", "ok crashed"
    ),
    contained("forge a reply and a piece of the next", (64,), f"os.write(3, frame({OK}) + b'\\0\\0')", "ok crashed"),
    contained("forge the reply of the next call", (64,), f"os.write(3, frame({OK}, 1))", "crashed"),
    contained("forge the reply of the request before", (64,), f"os.write(3, frame({OK}, -1))", ENDED),
    contained("say that it has begun, for the request before", (64,), "os.write(3, frame(b'', -1))", ENDED),
    contained("answer with nothing", (64,), "os.write(3, frame(b''))", "crashed ok"),
    contained(
        "ask for the web where there is none",
        (37, 64),
        "os.write(3, frame(b'{}', 1 << 31))\nreturn 1",
        "ok crashed",
    ),
    contained(
        "ask for the web ten thousand times",
        (37, 64),
        """
body = b'{"method":"GET","url":"http://169.254.169.254/","headers":{},"body":""}'
for i in range(10000): os.write(3, frame(body, 1 << 31))
""",
        "ok crashed timeout",
        timeout_s=0.9,
    ),
    contained(
        "reply late, from a thread",
        (64,),
        f"import threading, time\ndef late():\n    time.sleep(0.03)\n    os.write(3, frame({OK}, 1))\n"
        "threading.Thread(target=late, daemon=True).start()",
        "ok crashed exception",
        needs=("seccomp",),
        errors=("RuntimeError", "PermissionError"),
    ),
    contained(
        "reply late, from a signal",
        (64,),
        f"import signal\nsignal.signal(signal.SIGALRM, lambda *_: os.write(3, frame({OK}, 1)))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.03)",
        "ok crashed exception",
        errors=("PermissionError", "itimer_error"),
    ),
    contained(
        "reply early, before the source has run",
        (64,),
        "return 1",
        "ok exception crashed timeout",
        load=f"os.write(3, frame({OK}, -1))",
        errors=("the tools",),
        timeout_s=0.9,
    ),
    contained(
        "reply early, and never come back",
        (64,),
        "return 1",
        "ok exception crashed timeout",
        load='os.write(3, frame(b\'["ok",null,"",null]\', 0))\nwhile True: pass',
        errors=("the tools",),
        timeout_s=0.4,
    ),
    contained("end before it begins", (71,), "return 1", "exception", load="os._exit(0)", errors=("the tools",)),
    contained(
        "close the channel before it begins", (77,), "return 1", "exception", load="os.close(3)", errors=("the tools",)
    ),
    contained(
        "wake writes to the channel",
        (64,),
        """
import signal
os.set_blocking(3, False)
signal.set_wakeup_fd(3)
signal.signal(23, lambda *_: 0)
signal.raise_signal(23)
""",
        "crashed ok exception",
    ),
    contained(
        "crash with a report to the channel",
        (64,),
        "import faulthandler, ctypes\nfaulthandler.enable(file=3)\nctypes.string_at(0)",
        "crashed exception",
    ),
    contained(
        "lie about status and time",
        (69,),
        """
body = b'{"status":"timeout","duration_s":-1,"state_lost":false,"result":1}'
os.write(3, frame(body))
""",
        ENDED,
    ),
    contained(
        "claim a status that only the sandbox may give",
        (69,),
        'os.write(3, frame(b\'["timeout",null,"","slow"]\'))',
        "crashed timeout",
    ),
    contained("claim that the state is lost", (69,), 'os.write(3, frame(b\'["state_lost",null,"","gone"]\'))', ENDED),
    contained("reply with more parts", (69,), 'os.write(3, frame(b\'["ok",1,"",null,0.5,true]\'))', "crashed ok"),
    stopped(
        "write half a frame and hang",
        (70,),
        """
import time
os.write(3, frame(b'nope')[:10])
time.sleep(1e6)
""",
        "timeout crashed",
    ),
    stopped(
        "write a quarter of a header and hang",
        (70,),
        """
import time
os.write(3, b'\\0\\0')
time.sleep(1e6)
""",
        "timeout crashed",
    ),
    stopped(
        "drip a frame",
        (70,),
        """
import time
os.write(3, frame(b'[' * 255)[:8])
while True: os.write(3, b'[') and time.sleep(0.02)
""",
        "timeout crashed",
    ),
    contained("reply with what is not JSON", (64,), "os.write(3, frame(b'nope'))", ENDED),
    contained(
        "reply with what is not UTF-8", (64,), 'os.write(3, frame(b\'["ok","\\xff\\xfe","",null]\'))', "ok crashed"
    ),
    contained(
        "reply with infinite numbers", (68,), 'os.write(3, frame(b\'["ok",[1e999,-1e999],"",null]\'))', "ok crashed"
    ),
    contained(
        "reply with numbers that JSON has not",
        (68,),
        'os.write(3, frame(b\'["ok",[NaN,Infinity],"",null]\'))',
        "ok crashed",
    ),
    contained(
        "reply with a number of many digits",
        (43,),
        "os.write(3, frame(b'[\"ok\",' + b'9' * 15000 + b',\"\",null]'))",
        "ok crashed",
    ),
    contained(
        "reply with many keys",
        (67,),
        """
b = ','.join(f'"{i}":0' for i in range(1200)).encode()
os.write(3, frame(b'["ok",{' + b + b'},"",null]'))
""",
        "ok crashed",
    ),
    contained(
        "reply with the same key often",
        (67,),
        'os.write(3, frame(b\'["ok",{\' + b\'"a":0,\' * 1000 + b\'"a":1},"",null]\'))',
        "ok crashed",
    ),
    contained(
        "reply with deep lists",
        (67,),
        "os.write(3, frame(b'[\"ok\",' + b'[' * 900 + b']' * 900 + b',\"\",null]'))",
        "ok crashed",
    ),
    contained("reply with lists too deep", (67,), "os.write(3, frame(b'[' * 9000))", ENDED),
    contained(
        "reply with lists too deep, in small frames",
        (67,),
        "for i in range(99): os.write(3, frame(b'[' * 9000, i))",
        ENDED,
    ),
    contained(
        "reply with half a character",
        (60,),
        'os.write(3, frame(b\'["ok","\\\\ud800","\\\\udfff",null]\'))',
        "ok crashed",
    ),
    contained(
        "reply with keys of half a character",
        (60,),
        'os.write(3, frame(b\'["ok",{"\\\\ud800":1,"\\\\ud801":2},"",null]\'))',
        "ok crashed",
    ),
    contained(
        "reply with more output than allowed",
        (66,),
        "os.write(3, frame(b'[\"ok\",1,\"' + b'x' * 5000 + b'\",null]'))",
        ENDED,
    ),
    contained(
        "reply with a longer error than allowed",
        (66,),
        "os.write(3, frame(b'[\"exception\",null,\"\",\"' + b'x' * 5000 + b'\"]'))",
        ENDED,
    ),
    contained("reply with a program", (65,), "import pickle\nos.write(3, frame(pickle.dumps(print)))", ENDED),
    contained("close the channel", (77,), "os.close(3)", ENDED),
    contained(
        "close the channel and live",
        (77,),
        "import time\nos.close(3)\ntime.sleep(1e6)",
        "crashed timeout",
        timeout_s=0.9,
    ),
    contained("replace the channel", (77,), "os.dup2(0, 3)", "crashed timeout", timeout_s=0.4),
    contained(
        "replace the channel by a pipe",
        (77,),
        "r, w = os.pipe()\nos.dup2(w, 3)",
        "crashed timeout exception",
        timeout_s=0.4,
    ),
    contained("close everything", (77,), "os.closerange(0, 64)", ENDED),
    stopped(
        "keep the channel elsewhere, and close it",
        (77,),
        "import time\nos.dup(3)\nos.close(3)\ntime.sleep(1e6)",
        "timeout crashed",
    ),
    stopped("read the channel dry", (77,), "while True: os.read(3, 1)"),
    contained("make the channel not wait", (77,), "os.set_blocking(3, False)", "ok crashed"),
    contained(
        "answer and read no further",
        (77,),
        """
import threading, time
threading.Thread(target=lambda: [os.read(3, 1) for _ in iter(int, 1)], daemon=True).start()
time.sleep(0.05)
""",
        "ok crashed timeout exception",
        timeout_s=0.4,
        errors=("RuntimeError", "PermissionError"),
    ),
)
