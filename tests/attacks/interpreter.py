"""Attacks on the code that answers calls inside the session: items 71 to 78 of the design's list."""

from attacks.model import contained, group, stopped

OWN = "ok crashed exception"
ANY = ("",)
"""Whatever is raised: the attack breaks its own interpreter, and only the rest of the world matters."""

RUNNER = group(
    "runner",
    contained("exit", (71,), "os._exit(0)", "crashed"),
    contained("exit by a system call", (71,), "syscall(231, 7)", "crashed"),
    contained("end the only thread", (71,), "syscall(60, 0)", "crashed"),
    contained("raise SystemExit", (71,), "sys.exit(3)", "exception", errors=("SystemExit",)),
    contained("raise KeyboardInterrupt", (71,), "raise KeyboardInterrupt", "exception", errors=("KeyboardInterrupt",)),
    contained("raise GeneratorExit", (71,), "raise GeneratorExit", "exception", errors=("GeneratorExit",)),
    contained(
        "raise a group of exits",
        (71,),
        "raise BaseExceptionGroup('x', [SystemExit(), KeyboardInterrupt()])",
        "exception",
        errors=("BaseExceptionGroup",),
    ),
    contained(
        "raise an exit later",
        (71,),
        "import _thread\n_thread.interrupt_main()\nreturn 1",
        OWN,
        errors=("KeyboardInterrupt",),
    ),
    contained(
        "raise into the code that answers",
        (71,),
        """
import ctypes, threading, time
main = threading.main_thread().ident
raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
def later():
    for _ in range(50):
        raise_in(ctypes.c_ulong(main), ctypes.py_object(SystemExit))
        time.sleep(0.001)
threading.Thread(target=later, daemon=True).start()
time.sleep(0.02)
""",
        OWN,
        errors=ANY,
    ),
    contained(
        "poison the builtins",
        (72,),
        "import builtins\nbuiltins.len = builtins.type = builtins.repr = builtins.isinstance = None",
        OWN,
        errors=ANY,
    ),
    contained(
        "empty the builtins",
        (72,),
        "import builtins\nbuiltins.__dict__.clear()",
        OWN + " timeout",
        errors=ANY,
        timeout_s=0.9,
    ),
    contained(
        "poison json",
        (72,),
        "import json\njson.loads = json.dumps = None\njson.JSONEncoder.encode = json.JSONDecoder.decode = None",
        OWN,
        errors=ANY,
    ),
    contained(
        "poison the C part of json",
        (72,),
        "import json.encoder, json.decoder\njson.encoder.c_make_encoder = None\njson.decoder.scanstring = None",
        OWN,
        errors=ANY,
    ),
    contained("empty the modules", (72,), "sys.modules.clear()", OWN, errors=ANY),
    contained("poison os", (72,), "os.write = os.read = lambda *_: 0", OWN + " timeout", errors=ANY, timeout_s=0.9),
    contained(
        "lie about what was written",
        (72,),
        "real = os.write\nos.write = lambda fd, data: real(fd, data) // 2",
        OWN,
        errors=ANY,
    ),
    contained(
        "answer in place of the code that answers",
        (63, 72),
        'real = os.write\nos.write = lambda fd, data: real(fd, frame(b\'["ok",43,"",null]\'))',
        OWN,
        errors=ANY,
    ),
    contained("replace standard output", (72,), "sys.stdout = sys.stderr = None\nprint('x')", OWN, errors=ANY),
    contained(
        "replace standard output by what hangs",
        (72,),
        "class O:\n    def __getattr__(self, _):\n        while True: pass\nsys.stdout = O()",
        OWN + " timeout",
        errors=ANY,
        timeout_s=0.4,
    ),
    contained(
        "print more than allowed, by its own hand",
        (25, 66),
        """
o = sys.stdout
for name in list(vars(o)):
    if isinstance(getattr(o, name), int): setattr(o, name, 1 << 60)
print('x' * (1 << 22))
""",
        OWN,
        errors=ANY,
    ),
    contained(
        "rewrite the code that answers",
        (74,),
        """
import gc
frame_ = sys._getframe()
while frame_:
    names = frame_.f_globals
    for name in ('_send', '_receive', 'HEADER', 'encode_result', 'describe', '_encode', 'CHANNEL'):
        if name in names: names[name] = None
    frame_ = frame_.f_back
""",
        OWN,
        errors=ANY,
    ),
    contained(
        "raise the limits that the runner knows",
        (66, 74),
        """
frame_ = sys._getframe()
while frame_:
    tools = frame_.f_locals.get('self')
    limits = getattr(tools, '_limits', None)
    for name in ('output_chars', 'result_bytes', 'error_chars'):
        if hasattr(limits, name): object.__setattr__(limits, name, 1 << 40)
    frame_ = frame_.f_back
return 'x' * (1 << 23)
""",
        "over_limit crashed timeout",
        timeout_s=0.9,
    ),
    contained(
        "look for secrets in all objects",
        (74,),
        """
import gc
gc.unfreeze()
found = [o for o in gc.get_objects() if isinstance(o, dict) and any(isinstance(k, str) and 'SECRET' in k for k in o)]
frames, frame_ = [], sys._getframe()
while frame_:
    frames.append(repr(frame_.f_locals)[:2000])
    frame_ = frame_.f_back
return repr(found)[:2000] + repr(frames)[:2000]
""",
        "ok over_limit crashed",
    ),
    contained(
        "look for descriptors and sockets in all objects",
        (74,),
        """
import gc, io
gc.unfreeze()
held = []
for o in gc.get_objects():
    if type(o).__name__ in ('socket', 'FileIO', 'epoll', 'poll'):
        try: held.append((type(o).__name__, o.fileno(), os.fstat(o.fileno()).st_mode))
        except (OSError, ValueError, AttributeError): pass
held = [h for h in held if h[1] > 3]
return 'ESCAPED: ' + repr(held) if held else 1
""",
        "ok",
    ),
    contained(
        "read the environment by C",
        (75,),
        """
import ctypes
names = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), 'environ')
found, i = [], 0
while names and names[i]:
    found.append(names[i].decode())
    i += 1
kept = [f for f in found if not f.startswith('PYTHONHASHSEED=') and not f.startswith('LC_CTYPE=')]
return 'ESCAPED: ' + repr(kept) if kept else 1
""",
        "ok",
    ),
    contained(
        "read the environment and the arguments",
        (75,),
        """
got = [dict(os.environ), sys.argv, sys.orig_argv, os.getcwd()]
return 1 if got == [{}, [''], [''], '/'] else 'ESCAPED: ' + repr(got)
""",
        "ok",
    ),
    contained(
        "leave hooks behind",
        (76,),
        """
import atexit
atexit.register(lambda: os.write(3, b'late'))
sys.excepthook = sys.unraisablehook = None
sys.setprofile(lambda *_: None)
""",
        "ok crashed",
    ),
    contained(
        "leave a finalizer that writes",
        (76,),
        "class F:\n    def __del__(self): os.write(3, b'late')\nsys.kept = F()",
        "ok crashed",
    ),
    contained(
        "leave a finalizer in a cycle",
        (76,),
        "import weakref\nclass F: pass\nf = F()\nf.f = f\nweakref.finalize(f, os.write, 3, b'late')",
        "ok crashed",
    ),
    contained(
        "run when modules are imported",
        (72,),
        """
class Finder:
    def find_spec(self, *_):
        raise SystemExit
sys.meta_path.insert(0, Finder())
sys.path_hooks.clear()
import colorsys
""",
        "exception ok",
        errors=ANY,
    ),
    contained(
        "profile the code that answers",
        (76,),
        """
import threading
seen = []
def look(f, *_):
    seen.append(f.f_code.co_name)
    f.f_locals
sys.setprofile(look)
""",
        OWN,
        errors=ANY,
    ),
    contained(
        "raise from a profile in the code that answers",
        (76,),
        "def stop(*_): raise SystemExit\nsys.setprofile(stop)",
        OWN,
        errors=ANY,
    ),
    contained(
        "raise from a trace in the code that answers",
        (76,),
        """
def stop(*_): raise SystemExit
sys.settrace(stop)
frame_ = sys._getframe()
while frame_:
    frame_.f_trace = stop
    frame_ = frame_.f_back
""",
        OWN,
        errors=ANY,
    ),
    contained(
        "hook memory",
        (),
        """
import tracemalloc, gc
tracemalloc.start(100)
gc.callbacks.append(lambda *_: 1 / 0)
gc.set_threshold(1)
""",
        OWN,
        errors=ANY,
    ),
    contained(
        "make its own name a trap",
        (72,),
        "class T:\n    @property\n    def __wrapped__(self):\n        while True: pass\nglobals()['attack'] = T()",
        "ok crashed exception timeout unknown_tool",
        timeout_s=0.4,
    ),
    contained(
        "raise what has no name",
        (73,),
        """
class M(type):
    @property
    def __name__(cls): raise SystemExit
class E(Exception, metaclass=M): pass
raise E()
""",
        "exception crashed",
        errors=ANY,
    ),
    contained(
        "raise what has a name that is no text",
        (73,),
        "class M(type):\n    __name__ = 3\nclass E(Exception, metaclass=M): pass\nraise E()",
        "exception crashed",
        errors=ANY,
    ),
    contained(
        "raise what lies about its text",
        (73,),
        """
class S(str):
    def __getitem__(self, _): return S('x' * (1 << 22))
    def __len__(self): return 0
class E(Exception):
    def __str__(self): return S('x' * (1 << 22))
raise E()
""",
        "exception crashed over_limit",
        errors=ANY,
    ),
    contained(
        "raise while it tells what it raised",
        (73,),
        "class E(Exception):\n    def __str__(self): raise E()\nraise E()",
        "exception",
        errors=ANY,
    ),
    contained(
        "raise a chain without end",
        (73,),
        "a, b = ValueError('a'), ValueError('b')\na.__cause__, b.__cause__ = b, a\nraise a",
        "exception",
        errors=ANY,
    ),
    contained(
        "close the frame of its traceback",
        (73,),
        """
try: raise ValueError
except ValueError as e:
    e.__traceback__ = None
    raise e.with_traceback(None)
""",
        "exception",
        errors=ANY,
    ),
    contained(
        "be random like its siblings",
        (78,),
        """
import random, uuid
return [random.random(), uuid.uuid4().hex]
""",
        "ok",
    ),
    contained(
        "crash in a thread",
        (71,),
        "import threading\nt = threading.Thread(target=lambda: os._exit(3))\nt.start()\nt.join()",
        "crashed exception",
        errors=("RuntimeError", "PermissionError"),
    ),
    stopped(
        "crash when it is closed",
        (71,),
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nimport time\ntime.sleep(100)",
    ),
)
