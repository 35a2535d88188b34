"""Attacks on other processes and by new ones: items 12 to 19 and 26 to 34 of the design's list."""

from attacks.model import contained, group, refused, stopped

FS = ("landlock:fs", "root")
CALLS = ("seccomp",)
APART = ("uid", "landlock:scope", "seccomp")
PIDS = "pids = [t['zygote'], t['runner'], t['victim'], os.getppid()]\npids = [pid for pid in pids if pid > 1]\n"


OTHERS = group(
    "other processes",
    refused(
        "read /proc",
        (12,),
        """
pids = [1, 'self', 'thread-self', t['zygote'], t['runner'], t['victim'], os.getppid()]
kinds = 'environ mem maps cmdline root/ cwd/ fd/ task/ status stat comm auxv stack syscall wchan pagemap limits'
names = [f'/proc/{pid}/{kind}' for pid in pids for kind in kinds.split()]
names += ['/proc/kcore', '/proc/meminfo', '/proc/net/tcp', '/proc/keys', '/proc/sysvipc/shm', '/proc/mounts']
names += ['/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/kallsyms', '/proc/version', '/proc/cmdline']
return every((name, lambda name=name: os.open(name, os.O_RDONLY)) for name in names)
""",
        FS,
    ),
    refused(
        "read links of /proc",
        (12,),
        """
pids = ['self', t['zygote'], t['runner'], t['victim']]
names = [f'/proc/{pid}/{kind}' for pid in pids for kind in ('exe', 'cwd', 'root', 'fd/0', 'fd/3', 'ns/pid', 'ns/user')]
return every((name, lambda name=name: os.readlink(name)) for name in names)
""",
        ("root",),
    ),
    refused(
        "open own descriptors again",
        (12, 21),
        "names = ('/proc/self/fd/3', '/dev/fd/3', '/proc/self/mem')\n"
        "return every((name, lambda name=name: os.open(name, os.O_RDWR)) for name in names)",
        FS,
    ),
    refused(
        "trace",
        (13,),
        PIDS + "ways = [(r, pid) for pid in pids for r in (16, 0x4206)]\n"
        "calls = [((r, pid), lambda r=r, pid=pid: syscall(101, r, pid, 0, 0)) for r, pid in ways]\n"
        "return every(calls)",
        APART,
    ),
    refused("be traced", (13,), "return syscall(101, 0, 0, 0, 0)", CALLS),
    refused(
        "read and write the memory of others",
        (13,),
        PIDS + "import ctypes, struct\nb = ctypes.create_string_buffer(8)\n"
        "local = struct.pack('QQ', ctypes.addressof(b), 8)\nremote = struct.pack('QQ', id(os), 8)\n"
        "calls = [(f'{n} {pid}', lambda n=n, pid=pid: syscall(n, pid, local, 1, remote, 1, 0))\n"
        "    for pid in pids for n in (310, 311)]\nreturn every(calls)",
        APART,
    ),
    refused(
        "take descriptors of others",
        (13,),
        PIDS
        + """
calls = [('open', lambda pid=pid: syscall(438, syscall(434, pid, 0), 3, 0)) for pid in pids]
return every(calls)
""",
        APART,
    ),
    refused(
        "hold others by a descriptor",
        (13,),
        PIDS + "return every((pid, lambda pid=pid: syscall(434, pid, 0)) for pid in [*pids, os.getpid()])",
        CALLS,
        bare=True,
    ),
    refused(
        "look into others in other ways",
        (13,),
        PIDS
        + """
import ctypes
out = ctypes.create_string_buffer(64)
calls = []
for pid in pids:
    calls += [(f'get_robust_list {pid}', lambda pid=pid: syscall(274, pid, out, out)),
        (f'kcmp {pid}', lambda pid=pid: syscall(312, pid, pid, 0, 0, 0)),
        (f'move_pages {pid}', lambda pid=pid: syscall(279, pid, 0, 0, 0, 0, 0)),
        (f'migrate_pages {pid}', lambda pid=pid: syscall(256, pid, 1, out, out)),
        (f'process_madvise {pid}', lambda pid=pid: syscall(440, 3, 0, 0, 20, 0))]
return every(calls)
""",
        CALLS,
    ),
    # The signals are 0 and SIGURG, which nobody minds: an escape is seen by the call's success.
    refused(
        "signal others",
        (14,),
        PIDS + "calls = [(f'{s} {pid}', lambda s=s, pid=pid: os.kill(pid, s)) for pid in pids for s in (0, 23)]\n"
        "return every(calls)",
        APART,
    ),
    contained("signal everyone", (14,), "os.kill(-1, 23)", "ok exception", needs=APART),
    refused(
        "signal groups of others",
        (14,),
        PIDS + "return every((pid, lambda pid=pid: os.killpg(pid, 23)) for pid in pids)",
        APART,
    ),
    refused(
        "signal others by rarer calls",
        (14,),
        PIDS
        + """
import struct
info = struct.pack('iii', 23, 0, -1) + b'\\0' * 116
calls = []
for pid in pids:
    calls += [(f'tkill {pid}', lambda pid=pid: syscall(200, pid, 23)),
        (f'tgkill {pid}', lambda pid=pid: syscall(234, pid, pid, 23)),
        (f'rt_sigqueueinfo {pid}', lambda pid=pid: syscall(129, pid, 23, info)),
        (f'rt_tgsigqueueinfo {pid}', lambda pid=pid: syscall(297, pid, pid, 23, info))]
return every(calls)
""",
        APART,
    ),
    refused(
        "signal by a descriptor",
        (14,),
        PIDS + "return every((pid, lambda pid=pid: syscall(424, syscall(434, pid, 0), 23, 0, 0)) for pid in pids)",
        APART,
    ),
    refused(
        "be told of a descriptor's state in another's name",
        (14, 18),
        PIDS + "import fcntl\n"
        "calls = [(f'{d} {pid}', lambda d=d, pid=pid: fcntl.fcntl(d, 8, pid)) for pid in pids for d in (0, 3)]\n"
        "return every(calls)",
        ("seccomp",),
    ),
    refused(
        "change the limits of others",
        (15,),
        PIDS + "import struct\nlow = struct.pack('QQ', 64, 64)\n"
        "return every((pid, lambda pid=pid: syscall(302, pid, 11, low, 0)) for pid in pids)",
        ("uid", "seccomp"),
    ),
    refused(
        "read the limits of others",
        (15,),
        PIDS + "import resource\nreturn every((pid, lambda pid=pid: resource.prlimit(pid, 7)) for pid in pids)",
        ("uid", "seccomp"),
    ),
    refused(
        "change the scheduling of others",
        (16,),
        PIDS
        + """
calls = []
for pid in pids:
    calls += [(f'affinity {pid}', lambda pid=pid: os.sched_setaffinity(pid, {0})),
        (f'nice {pid}', lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, 19)),
        (f'group {pid}', lambda pid=pid: os.setpriority(os.PRIO_PGRP, pid, 19)),
        (f'policy {pid}', lambda pid=pid: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))),
        (f'io {pid}', lambda pid=pid: syscall(251, 1, pid, (3 << 13)))]
return every(calls)
""",
        ("uid", "seccomp"),
    ),
    refused(
        "change the scheduling of a whole user",
        (16,),
        "return every([('nice', lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19)),\n"
        "    ('io', lambda: syscall(251, 3, os.getuid(), (3 << 13)))])",
        CALLS,
    ),
    refused(
        "run before everyone",
        (16,),
        "return every([('fifo', lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))),\n"
        "    ('nice', lambda: os.setpriority(os.PRIO_PROCESS, 0, -20))])",
    ),
    refused(
        "share System V memory",
        (17,),
        "key = 0x52454341\nreturn every([('shm', lambda: syscall(29, key, 4096, 0o1666)),\n"
        "    ('msg', lambda: syscall(68, key, 0o1666)),\n"
        "    ('sem', lambda: syscall(64, key, 1, 0o1666))])",
        CALLS,
    ),
    refused(
        "find System V memory of others",
        (17,),
        "return syscall(29, t['sysv'], 0, 0)",
        ("network", "seccomp"),
        bare=True,
    ),
    refused("open a message queue", (17,), "return syscall(240, b'recall-attack', 0o100 | 2, 0o666, 0)", (*CALLS, *FS)),
    refused(
        "lock what others read",
        (18,),
        """
import fcntl
fd = os.open(os.__file__, os.O_RDONLY)
return every([('flock', lambda: fcntl.flock(fd, fcntl.LOCK_SH)),
    ('lock', lambda: fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)), ('ofd', lambda: fcntl.fcntl(fd, 37, b'\\0' * 32)),
    ('lease', lambda: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)),
    ('notify', lambda: fcntl.fcntl(os.open(os.path.dirname(os.__file__), 0), fcntl.F_NOTIFY, 1)),
    ('signal', lambda: fcntl.fcntl(fd, 10, 23)), ('pipe', lambda: fcntl.fcntl(0, 1031, 1 << 20))])
""",
        CALLS,
        bare=True,
    ),
    refused(
        "watch what others read",
        (18,),
        "return every([('inotify', lambda: syscall(294, 0)), ('old', lambda: syscall(253)),\n"
        "    ('fanotify', lambda: syscall(300, 0, 0))])",
        CALLS,
        bare=True,
    ),
    refused(
        "use the key rings",
        (19,),
        """
import ctypes
return every([('add', lambda: syscall(248, b'user', b'recall-attack', b'x', 1, -4)),
    ('session', lambda: syscall(250, 0, -3, 1)), ('join', lambda: syscall(250, 1, 0)),
    ('request', lambda: syscall(249, b'user', b'recall-attack', 0, -4))])
""",
        CALLS,
    ),
)

NEW = group(
    "new processes",
    refused("fork", (26,), "os.fork()", forks=True),
    refused("fork without end", (26,), "while True: os.fork()", forks=True),
    refused(
        "fork by system calls",
        (26,),
        """
import struct
def vfork():
    if syscall(56, 0x4000 | 0x100 | 17, 0, 0, 0, 0) == 0: syscall(231, 0)
def fork():
    if syscall(57) == 0: syscall(231, 0)
def clone3():
    if syscall(435, struct.pack('8Q', 0, 0, 0, 0, 17, 0, 0, 0), 64) == 0: syscall(231, 0)
def namespace():
    if syscall(56, 0x10000000 | 17, 0, 0, 0, 0) == 0: syscall(231, 0)
return every([('fork', fork), ('vfork', vfork), ('clone3', clone3), ('namespace', namespace)])
""",
        forks=True,
    ),
    refused(
        "make a thread that is no thread",
        (26,),
        """
def group():
    if syscall(56, 0x100 | 0x800 | 17, 0, 0, 0, 0) == 0: syscall(231, 0)
def orphan():
    if syscall(56, 0x8000 | 17, 0, 0, 0, 0) == 0: syscall(231, 0)
def untraced():
    if syscall(56, 0x800000 | 17, 0, 0, 0, 0) == 0: syscall(231, 0)
return every([('memory', group), ('parent', orphan), ('untraced', untraced)])
""",
        forks=True,
    ),
    refused("spawn", (26,), "os.posix_spawn('/bin/true', ['true'], {})", forks=True),
    refused("run a program", (26,), "import subprocess\nsubprocess.run(['/bin/true'])", forks=True),
    refused(
        "run a program by the module below",
        (26,),
        """
import _posixsubprocess
r, w = os.pipe()
args = [[b'true'], [b'/bin/true'], True, (), None, None, -1, -1, -1, -1, -1, -1, r, w, False, False, 0]
args += [None, None, None, -1, None]
_posixsubprocess.fork_exec(*args, True)
""",
        forks=True,
    ),
    refused("run the shell", (26,), "if os.system('/bin/true') != 0: raise OSError('refused')"),
    refused("open a pipe to a program", (26,), "import os\nos.popen('true').read()", forks=True),
    refused(
        "become a program",
        (26,),
        """
names = ['/bin/true', '/bin/sh', '/usr/bin/python3', t['python'], '/usr/bin/env', '/usr/bin/su']
names += ['/usr/bin/sudo', '/bin/mount']
return every((name, lambda name=name: os.execv(name, [name])) for name in names)
""",
        (*FS, *CALLS),
    ),
    refused(
        "become a program by the loader",
        (26,),
        """
names = ['/lib64/ld-linux-x86-64.so.2', '/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2', '/usr/lib64/ld-linux-x86-64.so.2']
return every((name, lambda name=name: os.execv(name, [name, '/bin/true'])) for name in names)
""",
        (*FS, *CALLS),
    ),
    refused(
        "use a pool of processes",
        (26,),
        "import multiprocessing\nmultiprocessing.get_context('fork').Process(target=print).start()",
        forks=True,
    ),
    refused("open a terminal", (26,), "import pty\npty.fork()", forks=True),
    refused(
        "run a program from memory",
        (27,),
        "fd = syscall(319, b'x', 0)\nos.write(fd, b'#!/bin/sh\\n')\nsyscall(322, fd, b'', 0, 0, 0x1000)",
        CALLS,
    ),
    refused(
        "make memory that is a file",
        (27,),
        "return every([('memfd', lambda: syscall(319, b'x', 0)), ('secret', lambda: syscall(447, 0))])",
        CALLS,
        bare=True,
    ),
    refused(
        "become a program by its descriptor",
        (27,),
        "fd = os.open(os.__file__, os.O_RDONLY)\nsyscall(322, fd, b'', 0, 0, 0x1000)",
    ),
    refused(
        "start threads without end",
        (28,),
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()",
        errors=("RuntimeError", "MemoryError"),
    ),
    contained(
        "start threads without end, and go on",
        (28,),
        """
import threading, time
try:
    while True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
except RuntimeError:
    return threading.active_count()
""",
        "ok crashed",
    ),
    refused(
        "become another",
        (30,),
        """
return every([('uid', lambda: os.setresuid(0, 0, 0)), ('gid', lambda: os.setresgid(0, 0, 0)),
    ('groups', lambda: os.setgroups([0])), ('reuid', lambda: os.setreuid(0, 0)), ('seteuid', lambda: os.seteuid(0))])
""",
    ),
    refused(
        "become another for files",
        (30,),
        """
if syscall(122, 0) == os.getuid() and syscall(122, -1) == 0: return 'ESCAPED'
raise PermissionError('no change')
""",
        errors=("PermissionError", "OSError"),
    ),
    refused(
        "take capabilities",
        (30,),
        "import struct\nsyscall(126, struct.pack('Ii', 0x20080522, 0), struct.pack('6I', *([0xffffffff] * 6)))",
    ),
    refused(
        "raise own limits",
        (),
        """
import resource
kinds = ('AS', 'CPU', 'NOFILE', 'FSIZE', 'CORE', 'MEMLOCK', 'MSGQUEUE')
def raised(kind):
    try: resource.setrlimit(getattr(resource, 'RLIMIT_' + kind), (resource.RLIM_INFINITY,) * 2)
    except ValueError as error: raise OSError(str(error))
return every((kind, lambda kind=kind: raised(kind)) for kind in kinds)
""",
        errors=("ValueError", *("PermissionError", "OSError")),
    ),
    refused(
        "leave the group",
        (29,),
        "return every([('setsid', os.setsid), ('setpgid', lambda: os.setpgid(0, t['zygote']))])",
        CALLS,
    ),
    contained(
        "leave for good",
        (29,),
        """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        import time
        time.sleep(1000)
    os._exit(0)
raise OSError('left')
""",
        "exception crashed",
        profile="subprocess",
        forks=True,
    ),
    stopped(
        "run programs without end",
        (26, 29),
        """
import subprocess
kept = []
while True:
    try: kept.append(subprocess.Popen(['/bin/sleep', '1000']))
    except OSError: pass
""",
        profile="subprocess",
        forks=True,
        timeout_s=0.9,
    ),
    stopped(
        "fork without end, and go on",
        (26, 29),
        "while True:\n    try: os.fork()\n    except OSError: pass",
        "timeout crashed",
        profile="subprocess",
        forks=True,
        timeout_s=0.9,
    ),
    stopped("stop itself", (), "os.kill(os.getpid(), 19)", "timeout exception"),
    stopped(
        "stop itself by rarer calls",
        (),
        "import signal\nsignal.raise_signal(19)\nsyscall(234, os.getpid(), os.getpid(), 19)",
        "timeout exception ok",
    ),
    contained("kill itself", (), "os.kill(os.getpid(), 9)", "crashed exception"),
    contained("kill its group", (), "os.killpg(0, 9)", "crashed exception"),
)
