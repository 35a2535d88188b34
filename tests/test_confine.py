"""Each layer, shown from inside a confined child by trying what it forbids, as root and as an unprivileged user."""

import functools
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import unprivileged
from recall.sandbox.local import LocalSandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

PROGRAM = Path(__file__).with_name("confined.py")
MODES = ("root", "nobody", "contained")
"""As root; unprivileged with user namespaces; unprivileged and refused them, as in most containers."""
SETTINGS: dict[str, Any] = {
    "cpu_s": 20,
    "memory_bytes": 512 << 20,
    "file_bytes": 4 << 20,
    "nofile": 32,
    "threads": 0,
    "processes": 0,
    "scratch_bytes": 0,
    "readable": [],
    "max_sessions": 64,
}
EPERM, ENOSYS = 1, 38
x86_64_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86_64")


def command(mode: str, *arguments: str, python: str = sys.executable) -> list[str]:
    if mode == "root":
        if os.geteuid() != 0:
            pytest.skip("this needs root")
        return [python, str(PROGRAM), *arguments]
    reason = unprivileged.refusal(namespaces=mode == "nobody")
    if reason is not None:
        pytest.skip(reason)
    return unprivileged.command(PROGRAM, *arguments, namespaces=mode == "nobody")


def snippets(text: str) -> dict[str, str]:
    """The code under each heading."""
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))


def confined(mode: str, wanted: Mapping[str, str], *, python: str = sys.executable, **settings: Any) -> Any:
    """What the program says of `wanted`, each run in a child of its own."""
    argument = json.dumps([SETTINGS | settings, dict(wanted)])
    done = subprocess.run(
        command(mode, argument, python=python), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PLAIN = snippets(r"""
## identity
return [*os.getresuid(), *os.getresgid(), *os.getgroups()]
## become root
os.setresuid(0, 0, 0)
## root directory
return sorted(os.listdir('/'))
## devices
return sorted(os.listdir('/dev'))
## passwd
open('/etc/passwd')
## own environment
open('/proc/self/environ')
## memory of the parent
open(f'/proc/{os.getppid()}/mem', 'rb')
## other directory
return os.listdir('/var')
## shared memory
open('/dev/shm/x', 'w')
## write to /tmp
open('/tmp/recall-confine-test', 'w')
## write to the library
open(os.__file__, 'r+')
## new file in the library
open(os.path.dirname(os.__file__) + '/evil.py', 'w')
## symbolic link
os.symlink('a', '/b')
## change of mode
os.chmod(os.__file__, 0o777)
## null
return open('/dev/null', 'wb').write(b'x')
## random
return len(open('/dev/urandom', 'rb').read(8)) + len(os.urandom(8))
## standard library
import decimal, ssl, sqlite3, csv, zoneinfo
return str(zoneinfo.ZoneInfo('Europe/Paris'))
## fork
os.fork()
## thread
import threading
threading.Thread(target=print).start()
## program
os.execv('/bin/true', ['true'])
## internet socket
import socket
socket.socket()
## datagram socket
import socket
socket.socket(type=socket.SOCK_DGRAM)
## local socket
import socket
socket.socket(socket.AF_UNIX)
## netlink socket
import socket
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
## pair of sockets
import socket
socket.socketpair()
## kill the parent
os.kill(os.getppid(), 9)
## kill everything
os.kill(-1, 9)
## limit the parent
import resource
resource.prlimit(os.getppid(), resource.RLIMIT_AS, (0, 0))
## own limits
import resource
return resource.prlimit(0, resource.RLIMIT_NOFILE)
## raise a limit
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
## affinity of the parent
os.sched_setaffinity(os.getppid(), {0})
## timer
import signal
signal.setitimer(signal.ITIMER_REAL, 1)
## group
os.setpgid(0, 0)
## session
os.setsid()
## lock
import fcntl
fcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_SH)
## lock of a range
import fcntl
fcntl.lockf(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_SH)
## typing into a terminal
import fcntl
fcntl.ioctl(3, 0x5412, b'x')
## descriptors
def has(n):
    try:
        os.fstat(n)
        return True
    except OSError:
        return False
return [n for n in range(2000) if has(n)]
## standard descriptors
null = os.stat('/dev/null').st_rdev
return [os.fstat(n).st_rdev == null for n in range(3)]
## abort
os.abort()
## null pointer
ctypes.string_at(0)
## memory
bytearray(1 << 30)
## interpreter
return [sum(range(100)), os.cpu_count() >= 0, __import__('platform').system()]
""")


@functools.cache
def plain(mode: str) -> Any:
    return confined(mode, PLAIN)


def outcome(mode: str, name: str) -> Any:
    return plain(mode)["outcomes"][name]


@pytest.mark.parametrize("mode", MODES)
def test_a_host_reports_the_layers_that_it_can_give(mode: str) -> None:
    everywhere = {"processes", "capabilities"}
    brought = {"root": {"uid", "network", "root"}, "nobody": {"network", "root"}, "contained": set[str]()}[mode]
    layers = set(plain(mode)["layers"])
    assert layers >= everywhere | brought
    assert not layers & {"pid", "scratch", "cgroup"}
    assert ("uid" in layers) == (mode == "root")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name",
    [
        "become root",
        "passwd",
        "own environment",
        "memory of the parent",
        "other directory",
        "shared memory",
        "write to /tmp",
        "write to the library",
        "new file in the library",
        "symbolic link",
        "change of mode",
        "fork",
        "program",
        "internet socket",
        "datagram socket",
        "local socket",
        "netlink socket",
        "pair of sockets",
        "kill the parent",
        "kill everything",
        "limit the parent",
        "affinity of the parent",
        "timer",
        "group",
        "session",
        "lock",
        "lock of a range",
        "typing into a terminal",
    ],
)
def test_what_is_forbidden_fails_with_an_error_of_the_system(mode: str, name: str) -> None:
    assert outcome(mode, name)["error"] in ("PermissionError", "FileNotFoundError", "OSError", "itimer_error")


@pytest.mark.parametrize("mode", MODES)
def test_a_thread_is_refused_where_none_was_promised(mode: str) -> None:
    assert outcome(mode, "thread")["error"] == "RuntimeError"


@pytest.mark.parametrize("mode", MODES)
def test_a_session_as_root_runs_under_a_uid_of_its_own_in_no_group(mode: str) -> None:
    uid, *others = outcome(mode, "identity")["value"]
    if mode == "root":
        assert uid > 0
        assert others == [uid] * 5
    else:
        assert uid == os.geteuid() or uid == unprivileged.NOBODY


@pytest.mark.parametrize("mode", ["root", "nobody"])
def test_a_private_root_holds_only_what_tools_need(mode: str) -> None:
    present = set(outcome(mode, "root directory")["value"])
    # Where Python or we ourselves lie there, they are shown there.
    ours = {str(Path(place).resolve()).split("/")[1] for place in (sys.base_prefix, sys.prefix, __file__)}
    assert not present & ({"proc", "sys", "tmp", "home", "var", "boot", "run", "opt", "mnt", ".old"} - ours)
    assert outcome(mode, "devices")["value"] == ["null", "urandom"]


@pytest.mark.parametrize("mode", MODES)
def test_what_tools_need_still_works(mode: str) -> None:
    assert outcome(mode, "null")["value"] == 1
    assert outcome(mode, "random")["value"] == 16
    assert outcome(mode, "interpreter")["value"] == [4950, True, "Linux"]
    assert outcome(mode, "own limits")["value"] == [32, 32]
    if Path("/usr/share/zoneinfo/Europe/Paris").exists():
        assert outcome(mode, "standard library")["value"] == "Europe/Paris"


@pytest.mark.parametrize("mode", MODES)
def test_limits_cannot_be_raised_and_memory_is_one_of_them(mode: str) -> None:
    assert outcome(mode, "raise a limit")["error"] in ("ValueError", "PermissionError")
    assert outcome(mode, "memory")["error"] == "MemoryError"


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_open_but_the_channel_and_null(mode: str) -> None:
    assert outcome(mode, "descriptors")["value"] == [0, 1, 2, 3]
    assert outcome(mode, "standard descriptors")["value"] == [True] * 3


@pytest.mark.parametrize("mode", MODES)
def test_a_crash_shows_as_its_signal(mode: str) -> None:
    assert outcome(mode, "abort")["ended"] == -6
    assert outcome(mode, "null pointer")["ended"] == -11


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)


async def test_the_kernel_shows_a_session_without_any_privilege() -> None:
    sandbox = LocalSandbox()
    session = await sandbox.open("import os\ndef pid():\n    return os.getpid()\n")
    pid = (await session.call("pid", {})).result
    status = status_of(pid)
    layers = sandbox.isolation
    await session.close()
    await sandbox.close()
    assert {int(status[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Amb")} == {0}
    assert status["NoNewPrivs"].strip() == "1"
    if "seccomp" in layers:
        assert status["Seccomp"].strip() == "2"
    if os.geteuid() == 0:
        assert int(status["CapBnd"], 16) == 0
        assert "0" not in status["Uid"].split() + status["Gid"].split()


# --- system calls by their numbers, past the C library

FORBIDDEN = {
    "ptrace": 101,
    "syslog": 103,
    "setuid": 105,
    "setsid": 112,
    "capget": 125,
    "capset": 126,
    "personality": 135,
    "prctl": 157,
    "chroot": 161,
    "mount": 165,
    "umount2": 166,
    "sethostname": 170,
    "init_module": 175,
    "tkill": 200,
    "io_setup": 206,
    "mq_open": 240,
    "kexec_load": 246,
    "add_key": 248,
    "keyctl": 250,
    "inotify_init": 253,
    "unshare": 272,
    "signalfd": 282,
    "timerfd_create": 283,
    "perf_event_open": 298,
    "fanotify_init": 300,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "kcmp": 312,
    "finit_module": 313,
    "seccomp": 317,
    "memfd_create": 319,
    "bpf": 321,
    "execveat": 322,
    "userfaultfd": 323,
    "membarrier": 324,
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "pidfd_open": 434,
    "openat2": 437,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "memfd_secret": 447,
    "flock": 73,
    "shmget": 29,
    "msgget": 68,
    "socket": 41,
    "socketpair": 53,
    "sendmsg": 46,
    "recvmsg": 47,
    "kill": 62,
    "execve": 59,
    "fork": 57,
    "vfork": 58,
    "setitimer": 38,
    "alarm": 37,
    "timer_create": 222,
    "get_robust_list": 274,
}
RAW = snippets(r"""
## clone
return [raw(56, flags, 0, 0, 0, 0) for flags in (17, 0x4111, 0x10000, 0x20011, 0x10000011, 0x20000011, 0x3D0F00)]
## clone3
return raw(435, 0, 0)
## tgkill
return [raw(234, os.getpid(), os.getpid(), 0), raw(234, os.getppid(), os.getppid(), 0), raw(234, 1, 1, 0)]
## lock owner
return [raw(72, 3, command, os.getppid()) for command in (5, 6, 7, 8, 1024, 1026, 1033)]
## futex
word = ctypes.c_int(0)
return [raw(202, ctypes.byref(word), op, 0, 0, 0, 0) for op in (1, 129, 6, 134, 7, 8, 11, 13)]
## second interface
return raw(0x40000000 + 39)
## third interface
import mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')
return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
""") | {"forbidden": f"return {{name: raw(number, 0, 0, 0, 0) for name, number in {FORBIDDEN!r}.items()}}"}


@functools.cache
def by_number(mode: str) -> Any:
    return confined(mode, RAW)["outcomes"]


@x86_64_only
@pytest.mark.parametrize("mode", MODES)
def test_forbidden_calls_are_refused_by_number(mode: str) -> None:
    answers = by_number(mode)["forbidden"]["value"]
    assert {name: answer for name, answer in answers.items() if answer != -EPERM} == {}


@x86_64_only
@pytest.mark.parametrize("mode", MODES)
def test_no_flags_of_clone_make_a_process_or_a_thread_in_a_plain_session(mode: str) -> None:
    assert by_number(mode)["clone"]["value"] == [-EPERM] * 7
    assert by_number(mode)["clone3"]["value"] == -ENOSYS


@x86_64_only
@pytest.mark.parametrize("mode", MODES)
def test_calls_that_may_name_something_foreign_are_looked_into(mode: str) -> None:
    assert by_number(mode)["tgkill"]["value"] == [0, -EPERM, -EPERM]
    assert by_number(mode)["lock owner"]["value"] == [-EPERM] * 7
    plain_wake, private_wake, *others = by_number(mode)["futex"]["value"]
    assert (plain_wake, private_wake) == (0, 0)
    assert others == [-EPERM] * 6


@x86_64_only
@pytest.mark.parametrize("mode", MODES)
def test_the_other_interfaces_of_the_kernel_end_the_process(mode: str) -> None:
    assert by_number(mode)["second interface"]["ended"] == -31
    # A kernel without 32-bit programs does not know the instruction.
    assert by_number(mode)["third interface"]["ended"] in (-31, -11)


# --- threads, copies, scratch space, programs, packages

THREADS = snippets(r"""
## some
import threading
out = []
ts = [threading.Thread(target=out.append, args=(i,)) for i in range(4)]
[t.start() for t in ts]
[t.join() for t in ts]
return sorted(out)
## bomb
import threading
threading.stack_size(32768)
stop = threading.Event()
for n in range(600):
    try:
        threading.Thread(target=stop.wait, daemon=True).start()
    except RuntimeError:
        return n
return n
## fork
os.fork()
""")


@pytest.mark.parametrize("mode", MODES)
def test_threads_may_be_started_and_processes_not(mode: str) -> None:
    said = confined(mode, THREADS, threads=6)
    assert said["outcomes"]["some"]["value"] == [0, 1, 2, 3]
    assert said["outcomes"]["fork"]["error"] == "PermissionError"
    assert said["outcomes"]["bomb"]["value"] >= 6
    if "uid" in said["layers"]:
        assert said["outcomes"]["bomb"]["value"] == 6
    elif "root" in said["layers"]:
        # All sessions of the zygote share the number.
        assert said["outcomes"]["bomb"]["value"] <= 7 * SETTINGS["max_sessions"]


COPIES = snippets(r"""
## copy
forks
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(write, b'x')
    os._exit(7)
return [os.read(read, 1).decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
## not a copy
os.fork()
## program
forks
os.execv('/bin/true', ['true'])
## signal
forks
os.kill(os.getppid(), 0)
## group
forks
if os.fork() == 0:
    try:
        os.setsid()
    except PermissionError:
        os._exit(9)
    os._exit(0)
return os.waitstatus_to_exitcode(os.wait()[1])
## receiving
forks
import socket
other = os.dup(3)
answers = []
for n in (3, other):
    try:
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=n).recvmsg(1, 100, socket.MSG_DONTWAIT)
    except OSError as error:
        answers.append(error.errno)
os._exit(answers == [11, 1] and 5)
## namespaces
forks
return [raw(56, 17 | bit, 0, 0, 0, 0) for bit in (0x20000, 0x10000000, 0x20000000, 0x40000000, 0x100)]
## bomb
forks
n = 0
try:
    while n < 1000:
        if os.fork() == 0:
            import time
            time.sleep(60)
            os._exit(0)
        n += 1
except OSError:
    pass
return n
""")


@pytest.mark.parametrize("mode", MODES)
def test_a_session_may_copy_itself_where_that_was_asked_for(mode: str) -> None:
    said = confined(mode, {name: text for name, text in COPIES.items() if name != "bomb"})["outcomes"]
    assert said["copy"]["value"] == ["x", 7]
    assert said["not a copy"]["error"] == "PermissionError"
    assert said["program"]["error"] == said["signal"]["error"] == "PermissionError"
    assert said["group"]["value"] == 9
    assert said["receiving"]["ended"] == 5
    if platform.machine() == "x86_64":
        assert said["namespaces"]["value"] == [-EPERM] * 5


def test_the_copies_of_a_session_with_a_uid_are_counted() -> None:
    said = confined("root", {"bomb": COPIES["bomb"]})
    if "uid" not in said["layers"]:
        pytest.skip("root may not change its uid here")
    assert said["outcomes"]["bomb"]["value"] == 128


SCRATCH = snippets(r"""
## use
import tempfile
os.mkdir('/private/tmp/d')
with open('/private/tmp/d/a', 'w') as f:
    f.write('abc')
os.rename('/private/tmp/d/a', '/private/tmp/b')
os.symlink('/etc/passwd', '/private/tmp/link')
os.chmod('/private/tmp/b', 0o700)
os.utime('/private/tmp/b')
os.truncate('/private/tmp/b', 2)
with tempfile.TemporaryFile('w+', dir='/private/tmp') as f:
    f.write('x')
return [open('/private/tmp/b').read(), sorted(os.listdir('/private/tmp')), os.stat('/private/tmp').st_mode & 0o777]
## after
return os.listdir('/private/tmp')
## through a link
os.symlink('/etc/passwd', '/private/tmp/link')
open('/private/tmp/link')
## full
n = 0
for i in range(9):
    with open(f'/private/tmp/{i}', 'wb', buffering=0) as f:
        for _ in range(16): n += f.write(bytes(1 << 16))
## file size
with open('/private/tmp/f', 'wb', buffering=0) as f:
    f.write(bytes(3 << 20))
    f.write(b'x')
## sparse
os.truncate(os.open('/private/tmp/f', os.O_CREAT | os.O_WRONLY), 1 << 40)
## many
for i in range(100000): open(f'/private/tmp/{i}', 'w').close()
## device
os.mknod('/private/tmp/null', 0o20666, os.makedev(1, 3))
## pipe
os.mkfifo('/private/tmp/pipe')
## outside
open('/evil', 'w')
## run
import shutil
ctypes.CDLL(shutil.copy(__import__('_json').__file__, '/private/tmp/x.so'))
""")


@pytest.mark.parametrize("mode", ["root", "nobody"])
def test_scratch_space_is_private_limited_and_gone_with_the_session(mode: str) -> None:
    said = confined(mode, SCRATCH, scratch_bytes=4 << 20, file_bytes=2 << 20)
    assert "scratch" in said["layers"]
    outcomes = said["outcomes"]
    assert outcomes["use"]["value"] == ["ab", ["b", "d", "link"], 0o700]
    assert outcomes["after"]["value"] == []
    assert outcomes["through a link"]["error"] in ("FileNotFoundError", "PermissionError")
    assert outcomes["full"]["errno"] == 28
    assert outcomes["file size"]["errno"] == 27
    assert outcomes["many"]["errno"] == 28
    for name in ("sparse", "device", "pipe", "outside", "run"):
        assert "error" in outcomes[name] or outcomes[name]["ended"] == -25, name


def test_without_a_private_root_there_is_no_scratch_space() -> None:
    wanted = {
        "write": "open('/tmp/recall-confine-test', 'w')",
        "mode": "os.chmod('/dev/shm', 0)",
        "time": "os.utime('/tmp')",
    }
    said = confined("contained", wanted, scratch_bytes=1 << 20)
    assert said["outcomes"]["mode"]["errno"] == said["outcomes"]["time"]["errno"] == EPERM
    assert "scratch" not in said["layers"]
    assert said["outcomes"]["write"]["error"] == "PermissionError"


PROGRAMS = snippets(r"""
## shell
import subprocess
return subprocess.run('echo $((6 * 7)) | cat; ls /private/tmp', shell=True, capture_output=True, text=True).stdout
## python
import subprocess
code = 'import json; print(json.dumps(1))'
return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={}).stdout
## pid
return os.getpid()
## kill own
import subprocess
p = subprocess.Popen(['sleep', '60'])
p.kill()
return p.wait()
## kill all
import subprocess
p = subprocess.Popen(['sleep', '60'])
os.kill(-1, 9)
return p.wait()
## daemon
import subprocess
subprocess.Popen(['sleep', '86399.25'])
return 1
## session
import subprocess
return subprocess.run(['setsid', '-w', 'true'], capture_output=True).returncode
## bomb
import time
n = 0
try:
    while n < 1000:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        n += 1
except OSError:
    pass
return n
## socket
import subprocess
done = subprocess.run([sys.executable, '-c', 'import socket; socket.socket()'], capture_output=True, text=True)
return done.stderr.splitlines()[-1]
## namespace
import subprocess
return subprocess.run(['unshare', '-U', 'true'], capture_output=True).returncode
## own file
import subprocess
open('/private/tmp/x', 'w').write('#!/bin/sh\necho hi')
os.chmod('/private/tmp/x', 0o755)
subprocess.run(['/private/tmp/x'])
## passwd
import subprocess
return subprocess.run(['cat', '/etc/passwd'], capture_output=True).returncode
## copies
forks
os.fork()
## exit
os._exit(43)
## crash
ctypes.string_at(0)
""")


def sleeping(seconds: str) -> set[str]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if words[:2] == [b"sleep", seconds.encode()]:
                found.add(entry.name)
    return found


@pytest.mark.parametrize("mode", ["root", "nobody"])
def test_programs_run_contained_and_end_with_the_session(mode: str) -> None:
    said = confined(mode, PROGRAMS, processes=12, scratch_bytes=1 << 20)
    assert {"pid", "scratch", "seccomp"} <= set(said["layers"])
    outcomes = said["outcomes"]
    assert outcomes["shell"]["value"] == "42\n"
    assert outcomes["python"]["value"] == "1\n"
    assert outcomes["pid"]["value"] == 1
    assert outcomes["kill own"]["value"] == outcomes["kill all"]["value"] == -9
    assert outcomes["session"]["value"] != 0
    assert outcomes["namespace"]["value"] != 0
    assert outcomes["passwd"]["value"] != 0
    assert "PermissionError" in outcomes["socket"]["value"]
    assert outcomes["own file"]["error"] == "PermissionError"
    assert "cannot copy itself" in outcomes["copies"]["refused"]
    assert outcomes["exit"]["ended"] == 43
    assert outcomes["crash"]["ended"] == -11
    assert outcomes["bomb"]["value"] <= (12 if "uid" in said["layers"] else 14 * SETTINGS["max_sessions"])
    assert outcomes["daemon"]["value"] == 1
    deadline = time.monotonic() + 20
    while sleeping("86399.25"):
        assert time.monotonic() < deadline, "a program outlived its session"
        time.sleep(0.05)


def test_programs_are_refused_where_nothing_keeps_them_from_others() -> None:
    assert "`processes` needs" in confined("contained", {}, processes=4)["refused"]


@pytest.mark.parametrize("mode", MODES)
def test_only_listed_packages_can_be_read(mode: str) -> None:
    site = Path("/var/tmp") / f"recall-confine-{os.getpid()}-{mode}"
    try:
        for name in ("listed", "unlisted"):
            (site / name).mkdir(parents=True)
            (site / name / "__init__.py").write_text("VALUE = 5\n")
        (site / "single.py").write_text("VALUE = 6\n")
        wanted = {
            name: f"sys.path.append({str(site)!r})\nimport {name}\nreturn {name}.VALUE"
            for name in ("listed", "unlisted", "single")
        } | {"write": f"open({str(site / 'listed' / '__init__.py')!r}, 'a')"}
        said = confined(mode, wanted, readable=[str(site / "listed"), str(site / "single.py"), str(site / "absent")])
        assert said["outcomes"]["listed"]["value"] == 5
        assert said["outcomes"]["single"]["value"] == 6
        assert said["outcomes"]["unlisted"]["error"] in ("ModuleNotFoundError", "PermissionError")
        assert said["outcomes"]["write"]["error"] in ("PermissionError", "OSError")
    finally:
        subprocess.run(["rm", "-r", str(site)], check=True)


def test_packages_beside_the_standard_library_are_not_shown() -> None:
    body = "import sysconfig\nreturn os.listdir(os.path.dirname(os.__file__) + '/site-packages')"
    said = confined("root", {"list": body})
    if "root" not in said["layers"]:
        pytest.skip("there is no private root here")
    assert said["outcomes"]["list"].get("value", []) == []


def test_a_prefix_that_is_a_link_works(tmp_path: Path) -> None:
    link = tmp_path / "python"
    link.symlink_to(sys.base_prefix)
    python = link / "bin" / Path(os.path.realpath(sys.executable)).name
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    argument = json.dumps([SETTINGS, {"import": "import decimal, ssl\nreturn sys.base_prefix"}])
    done = subprocess.run(
        [str(python), str(PROGRAM), argument], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcomes"]["import"] == {"value": str(link)}


def test_a_cgroup_that_was_lent_is_entered_or_the_start_fails(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("")
    assert "cgroup" in confined("root", {}, cgroup=str(tmp_path))["layers"]
    assert (tmp_path / "cgroup.procs").read_text() == "0"
    assert "No such file" in confined("root", {}, cgroup=str(tmp_path / "absent"))["refused"]
