"""Attacks on time and memory: items 39 to 57 of the design's list."""

from attacks.model import contained, group, refused, stopped

MEMORY = ("MemoryError",)

TIME = group(
    "time",
    stopped("loop", (39,), "while True: pass"),
    stopped("loop in C", (39,), "sum(iter(int, 1))"),
    stopped("loop in a comprehension", (39,), "[1 for _ in iter(int, 1)]", "timeout exception crashed", errors=MEMORY),
    stopped("sleep", (40,), "import time\ntime.sleep(1e9)"),
    stopped("wait for itself", (40,), "import threading\nthreading.Lock().acquire() and threading.Event().wait()"),
    stopped(
        "wait for a lock held by itself", (40,), "import threading\nl = threading.Lock()\nl.acquire()\nl.acquire()"
    ),
    stopped("compute a large number", (41,), "return 10 ** 10 ** 10", "timeout exception crashed", errors=MEMORY),
    stopped("match without end", (42,), "import re\nre.match(r'(a+)+$', 'a' * 64 + 'b')"),
    stopped("print a large number", (43,), "sys.set_int_max_str_digits(0)\nreturn str(1 << 30_000_000)"),
    stopped("return a large number", (43,), "sys.set_int_max_str_digits(0)\nreturn 1 << 30_000_000"),
    stopped(
        "sort by a comparison without end",
        (39,),
        "class C:\n    def __lt__(self, o):\n        while True: pass\nsorted([C(), C()])",
    ),
    stopped(
        "be deaf to signals",
        (44,),
        """
import signal
for s in range(1, 65):
    try: signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: pass
""",
    ),
    stopped(
        "answer signals with more work",
        (44,),
        """
import signal
def again(*_):
    while True: pass
for s in (signal.SIGALRM, signal.SIGTERM, signal.SIGXCPU, signal.SIGVTALRM, signal.SIGUSR1):
    signal.signal(s, again)
while True: pass
""",
    ),
    stopped(
        "swallow every exception",
        (47,),
        """
def forever():
    while True:
        try:
            while True: pass
        except BaseException: pass
forever()
""",
    ),
    stopped(
        "swallow every exception in a `finally`",
        (47,),
        "while True:\n    try:\n        while True: pass\n    finally: continue",
    ),
    stopped(
        "swallow every exception by a context",
        (47,),
        """
class All:
    def __enter__(self): pass
    def __exit__(self, *_): return True
while True:
    with All():
        while True: pass
""",
    ),
    stopped(
        "hang in a message",
        (45,),
        """
class E(Exception):
    def __str__(self):
        while True: pass
raise E()
""",
    ),
    stopped(
        "hang in a result's text", (46,), "class R:\n    def __repr__(self):\n        while True: pass\nreturn R()"
    ),
    stopped(
        "hang in a result's items",
        (46,),
        """
class D(dict):
    def items(self):
        while True: yield 'a', 1
d = D()
d['a'] = object()
return d
""",
        "timeout ok exception crashed",
        errors=MEMORY,
    ),
    stopped(
        "hang in a finalizer",
        (76,),
        """
class F:
    def __del__(self):
        while True: pass
F()
""",
        "timeout ok",
    ),
    stopped(
        "hang in a finalizer of the result",
        (76,),
        "class F(int):\n    def __del__(self):\n        while True: pass\nreturn F(1)",
        "timeout ok",
    ),
    stopped("hang in an audit hook", (), "def hook(*_):\n    while True: pass\nsys.addaudithook(hook)\nopen('x')"),
    stopped(
        "hang in a trace",
        (76,),
        "def hang(*_):\n    while True: pass\nsys.settrace(hang)\nsys.setprofile(hang)\nlen('')",
    ),
    stopped(
        "hang in all that follows",
        (76,),
        """
def hang(*_):
    while True: pass
sys.setprofile(hang)
return 1
""",
    ),
    stopped(
        "hang while the tools are loaded", (), "return 1", "exception", load="while True: pass", errors=("the tools",)
    ),
    stopped(
        "switch threads never",
        (47,),
        """
sys.setswitchinterval(1e9)
import threading
threading.Thread(target=lambda: [0 for _ in iter(int, 1)], daemon=True).start()
while True: pass
""",
        "timeout exception crashed",
        errors=("MemoryError", "RuntimeError"),
    ),
    stopped(
        "hold a lock of the interpreter",
        (47,),
        """
import threading
getattr(threading, "_shutdown_locks_lock", threading._active_limbo_lock).acquire()
threading.Thread(target=print).start()
""",
        "timeout exception crashed ok",
        errors=("RuntimeError",),
    ),
    stopped(
        "chain generators without end",
        (39,),
        "import itertools\nlist(itertools.cycle([1]))",
        "timeout exception crashed",
        errors=MEMORY,
    ),
    contained(
        "leave a thread that burns",
        (48,),
        "import threading\ndef burn():\n    while True: pass\nthreading.Thread(target=burn, daemon=True).start()",
        "ok crashed exception",
        idle=True,
        needs=("seccomp",),
        errors=("RuntimeError", "PermissionError"),
    ),
    contained(
        "leave a thread that burns in C",
        (48,),
        "import threading, hashlib\ndef burn():\n    while True: hashlib.pbkdf2_hmac('sha256', b'x', b'y', 100000)\n"
        "threading.Thread(target=burn, daemon=True).start()",
        "ok crashed exception",
        idle=True,
        needs=("seccomp",),
        errors=("RuntimeError", "PermissionError"),
    ),
    contained(
        "leave a timer that burns",
        (48, 76),
        """
import signal
def burn(*_):
    while True: pass
signal.signal(signal.SIGALRM, burn)
signal.signal(signal.SIGVTALRM, burn)
for kind in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
    try: signal.setitimer(kind, 0.01, 0.01)
    except OSError: pass
""",
        "ok crashed exception",
        idle=True,
        needs=("seccomp",),
    ),
    contained(
        "leave an alarm that burns",
        (48, 76),
        "import signal\ndef burn(*_):\n    while True: pass\nsignal.signal(signal.SIGALRM, burn)\nsignal.alarm(1)",
        "ok crashed exception",
        idle=True,
    ),
    contained(
        "leave a threading timer",
        (48, 76),
        "import threading\ndef burn():\n    while True: pass\nthreading.Timer(0.01, burn).start()",
        "ok crashed exception",
        idle=True,
        needs=("seccomp",),
        errors=("RuntimeError", "PermissionError"),
    ),
    contained(
        "leave a watchdog of faulthandler",
        (48, 64),
        "import faulthandler\nfaulthandler.dump_traceback_later(0.01, repeat=True, file=3)",
        "ok crashed exception",
        idle=True,
        errors=("PermissionError", "OSError", "RuntimeError"),
    ),
)

SPACE = group(
    "memory",
    refused("allocate at once", (49,), "return len(bytearray(1 << 30))", errors=MEMORY),
    refused("allocate bit by bit", (50,), "x = []\nwhile True: x.append(bytearray(1 << 20))", errors=MEMORY),
    contained(
        "allocate many small objects",
        (50,),
        "x = []\nwhile True: x.append([])",
        "exception timeout crashed",
        errors=MEMORY,
        timeout_s=0.9,
    ),
    contained(
        "allocate and keep",
        (50,),
        "sys.kept = x = []\nwhile True: x.append(bytearray(1 << 18))",
        "exception crashed",
        errors=MEMORY,
    ),
    refused(
        "unpack a bomb",
        (51,),
        """
import zlib
d = zlib.compressobj()
z = d.compress(bytes(1 << 25)) + d.flush()
x = []
while True: x.append(zlib.decompress(z))
""",
        errors=MEMORY,
    ),
    refused(
        "unpack a bomb of lzma",
        (51,),
        "import lzma\nz = lzma.compress(bytes(1 << 24))\nx = []\nwhile True: x.append(lzma.decompress(z))",
        errors=(*MEMORY, "LZMAError"),
    ),
    contained("fold constants", (52,), "return len(eval(\"'a' * 10 ** 9\"))", "exception", errors=MEMORY),
    refused(
        "map anonymous memory",
        (),
        "import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 1 << 24))",
        errors=("OSError", *MEMORY),
    ),
    refused(
        "map shared memory that is never counted",
        (),
        "import mmap\nmmap.mmap(-1, 1 << 36)",
        errors=("OSError", *MEMORY),
    ),
    refused(
        "reserve without a swap",
        (),
        """
import mmap
mmap.mmap(-1, 1 << 40, 0x4022)
""",
        errors=("OSError", *MEMORY),
    ),
    refused(
        "lock memory",
        (),
        "import ctypes\nb = ctypes.create_string_buffer(1 << 20)\nsyscall(149, ctypes.addressof(b), 1 << 20)",
    ),
    refused("recurse", (53,), "def f(): return f()\nf()", errors=("RecursionError",)),
    contained(
        "recurse in C",
        (54,),
        "sys.setrecursionlimit(10 ** 9)\nx = []\nfor _ in range(10 ** 6): x = [x]\nreturn repr(x)",
        "crashed exception timeout",
        errors=(*MEMORY, "RecursionError"),
        timeout_s=0.9,
    ),
    contained(
        "recurse without a limit",
        (54,),
        "sys.setrecursionlimit(10 ** 9)\ndef f(): return f()\nf()",
        "crashed exception timeout",
        errors=(*MEMORY, "RecursionError"),
        timeout_s=0.9,
    ),
    contained(
        "recurse in a large thread",
        (54,),
        "import threading\nthreading.stack_size(1 << 28)\nthreading.Thread(target=print).start()",
        "exception ok",
        errors=("RuntimeError", "ValueError", *MEMORY),
    ),
    contained("read nowhere", (55,), "import ctypes\nctypes.string_at(0)", "crashed"),
    contained(
        "read nowhere, with the signal caught",
        (55,),
        "import signal, ctypes\nsignal.signal(signal.SIGSEGV, signal.SIG_IGN)\nctypes.string_at(0)",
        "crashed timeout",
        timeout_s=0.4,
    ),
    contained("write to the code", (55,), "import ctypes\nctypes.memset(id(len), 0xff, 64)\nlen([])", "crashed"),
    contained("abort", (56,), "os.abort()", "crashed"),
    contained("fail in the interpreter", (56,), "import ctypes\nctypes.pythonapi.Py_FatalError(b'x')", "crashed"),
    contained(
        "corrupt small numbers",
        (72,),
        "import ctypes\nctypes.memset(id(7) + 24, 9, 1)\nreturn 7",
        "ok crashed exception timeout",
        errors=("",),
        timeout_s=0.4,
    ),
    refused("open descriptors without end", (20,), "x = []\nwhile True: x.append(os.dup(0))"),
    contained(
        "fill pipes",
        (),
        """
made = []
try:
    while True: made += os.pipe()
except OSError: pass
for fd in made:
    try:
        os.set_blocking(fd, False)
        while True: os.write(fd, bytes(65536))
    except OSError: pass
""",
        "ok exception",
    ),
)
