"""The filter of system calls, as a program: run here by an interpreter of its own, on both machines."""

import itertools
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.sandbox.inside.seccomp import OWN_PID, Filter, Needs, build, known

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
PID = 4711
EVERY = [Needs(*flags) for flags in itertools.product((False, True), repeat=4)]
CLONE_OF_THREAD, CLONE_OF_COPY, CLONE_OF_VFORK = 0x3D0F00, 0x1200011, 0x4111
"""What the C library asks for."""
NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)

NEVER = """
socket socketpair connect accept accept4 bind listen sendto sendmsg sendmmsg recvfrom recvmmsg ptrace
process_vm_readv process_vm_writev pidfd_open pidfd_getfd pidfd_send_signal tkill rt_sigqueueinfo rt_tgsigqueueinfo
memfd_create execveat io_uring_setup io_uring_enter io_uring_register bpf keyctl add_key request_key userfaultfd
perf_event_open flock prctl mount umount2 pivot_root chroot unshare setns seccomp setitimer alarm timer_create
timerfd_create setpgid setsid setuid setgid setresuid setresgid setgroups capset capget mknod mknodat
open_by_handle_at name_to_handle_at inotify_init inotify_init1 fanotify_init shmget semget msgget mq_open
get_robust_list sched_setaffinity sched_setscheduler setpriority ioprio_set kcmp init_module finit_module kexec_load
reboot swapon swapoff clock_settime settimeofday adjtimex sethostname personality modify_ldt iopl ioperm
landlock_restrict_self process_madvise move_pages migrate_pages mbind quotactl acct syslog vhangup openat2 fsopen
move_mount open_tree mount_setattr splice tee vmsplice sendfile remap_file_pages setrlimit membarrier
"""


def trace(code: bytes, machine: int, number: int, arguments: tuple[int, ...] = ()) -> tuple[int, int]:
    """What the program answers, and after how many instructions: the kernel's own interpreter in a few lines."""
    data = struct.pack("=IIQ6Q", number, machine, 0, *(arguments + (0,) * (6 - len(arguments))))
    accumulator, at = 0, 0
    for steps in range(len(code)):
        what, yes, no, value = struct.unpack_from("=HBBI", code, 8 * at)
        at += 1
        if what == 0x20:
            assert value % 4 == 0
            assert value < len(data)
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif what == 0x54:
            accumulator &= value
        elif what == 0x05:
            at += value
        elif what == 0x15:
            at += yes if accumulator == value else no
        elif what == 0x35:
            at += yes if accumulator >= value else no
        else:
            assert what == 0x06
            return int(value), steps
    raise AssertionError("the program does not end")


def run(code: bytes, machine: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    return trace(code, machine, number, arguments)[0]


def installed(filter_: Filter) -> bytes:
    """The code as a process with the pid `PID` hands it to the kernel."""
    if filter_.pid_at is None:
        return filter_.code
    return filter_.code[: filter_.pid_at] + struct.pack("=I", PID) + filter_.code[filter_.pid_at + 4 :]


CODES = {(machine, needs): installed(build(machine, needs)) for machine in MACHINES for needs in EVERY}


def right(name: str, needs: Needs, arguments: tuple[int, ...]) -> bool:
    """Whether a call of the table is to be allowed; written apart from the table of rules."""
    low = [argument & 0xFFFFFFFF for argument in arguments]
    flags = low[0]
    match name:
        case "clone":
            bare = not any(flags & bit for bit in (*NAMESPACES, 0x2000, 0x800000, 0x1000, 0x8000))
            thread = flags & 0x10000 and not flags & 0x4000
            alone = not flags & 0x10E00 and flags & 0xFF == 17
            copy = alone and not flags & 0x4100
            return bare and bool((needs.threads and thread) or (needs.copies and copy) or (needs.programs and alone))
        case "fcntl":
            return low[1] in (0, 1, 2, 3, 4, 1030)
        case "ioctl":
            return low[1] in (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
        case "futex":
            return low[1] & ~0x180 in (0, 1, 3, 4, 5, 9, 10)
        case "prlimit64" | "sched_getaffinity":
            return low[0] == 0
        case "tgkill":
            return needs.programs or low[0] == PID
        case "recvmsg":
            return needs.copies and low[0] == 3
        case "wait4" | "waitid" | "fork":
            return needs.copies or needs.programs
        case "execve" | "vfork" | "kill" | "arch_prctl":
            return needs.programs
    changes = ("mk", "rm", "unlink", "rename", "symlink", "fchmod", "chmod", "truncate", "ftruncate", "fallocate")
    if name.startswith(changes) or name in ("fsync", "fdatasync", "utimensat"):
        return needs.scratch
    return True


def interesting(name: str) -> Iterator[tuple[int, ...]]:
    """Arguments on both sides of every check, the upper half of the 64 bits set and not."""
    firsts: list[int] = [0, 1, 3, 4, PID, PID - 1, 0xFFFFFFFF, CLONE_OF_THREAD, 0x7D0F00, CLONE_OF_COPY, CLONE_OF_VFORK]
    if name == "clone":
        firsts += [base ^ 1 << bit for base in (CLONE_OF_THREAD, CLONE_OF_COPY, CLONE_OF_VFORK) for bit in range(32)]
        firsts += [17 | bit for bit in NAMESPACES] + [0x10000 | bit for bit in NAMESPACES]
    seconds = [0]
    if name in ("fcntl", "ioctl", "futex"):
        firsts = [0, 3]
        seconds = [
            *range(40),
            *range(1020, 1040),
            *range(0x5400, 0x5460),
            *(op | bit for op in range(16) for bit in (128, 256, 384, 512)),
        ]
    for first, second, high in itertools.product(firsts, seconds, (0, 1 << 32)):
        yield first | high, second | high, 0, 0, 0, 0


@pytest.mark.parametrize("machine", MACHINES)
def test_exactly_the_intended_calls_are_allowed(machine: str) -> None:
    numbers = known(machine)
    names = {number: name for name, number in numbers.items()}
    for needs in EVERY:
        code = CODES[machine, needs]
        for number in range(1024):
            name = names.get(number)
            if name == "clone3":
                assert run(code, MACHINES[machine], number) == ENOSYS
            elif name is None:
                assert run(code, MACHINES[machine], number) == EPERM
            else:
                for arguments in interesting(name):
                    expected = ALLOW if right(name, needs, arguments) else EPERM
                    assert run(code, MACHINES[machine], number, arguments) == expected, (name, needs, arguments)


@settings(max_examples=3000, deadline=None)
@given(
    st.sampled_from(sorted(CODES, key=repr)),
    st.integers(0, 0xFFFFFFFF) | st.integers(0, 500),
    st.tuples(*[st.integers(0, 2**64 - 1) | st.integers(0, 2**16)] * 6),
)
def test_arbitrary_calls_get_the_intended_answer(
    which: tuple[str, Needs], number: int, arguments: tuple[int, ...]
) -> None:
    machine, needs = which
    name = {number: name for name, number in known(machine).items()}.get(number)
    if machine == "x86_64" and number >= 0x40000000:
        expected = KILL
    elif name is None:
        expected = EPERM
    elif name == "clone3":
        expected = ENOSYS
    else:
        expected = ALLOW if right(name, needs, arguments) else EPERM
    assert run(CODES[which], MACHINES[machine], number, arguments) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_a_call_by_another_interface_ends_the_process(machine: str) -> None:
    for needs in EVERY:
        for other in (0x40000003, 0x40000028, 0, 0xFFFFFFFF, *MACHINES.values()):
            if other != MACHINES[machine]:
                assert {run(CODES[machine, needs], other, number) for number in (0, 1, 39, 60, 435)} == {KILL}
        if machine == "x86_64":
            x32 = (0x40000000, 0x40000001, 0x40000208, 0x7FFFFFFF, 0xFFFFFFFF)
            assert {run(CODES[machine, needs], MACHINES[machine], number) for number in x32} == {KILL}


@pytest.mark.parametrize("machine", MACHINES)
def test_what_no_profile_may_do_has_no_number_in_any_table(machine: str) -> None:
    assert not set(NEVER.split()) & set(known(machine))


@pytest.mark.parametrize("machine", MACHINES)
def test_a_filter_is_short_and_decides_quickly(machine: str) -> None:
    for needs in EVERY:
        code = build(machine, needs).code
        assert len(code) // 8 <= 150
        depth = max(trace(code, MACHINES[machine], number)[1] for number in known(machine).values())
        assert depth <= 24


def test_only_the_own_pid_is_written_into_a_filter() -> None:
    for machine, needs in itertools.product(MACHINES, EVERY):
        filter_ = build(machine, needs)
        assert (filter_.pid_at is None) == needs.programs
        if filter_.pid_at is not None:
            assert struct.unpack_from("=I", filter_.code, filter_.pid_at)[0] == OWN_PID % 2**32
            assert struct.unpack_from("=H", filter_.code, filter_.pid_at - 4)[0] == 0x15


def test_an_unknown_machine_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        build("riscv64", Needs())


HEADERS = {
    "x86_64": ("x86_64-linux-gnu/asm/unistd_64.h", "asm/unistd_64.h"),
    "aarch64": ("asm-generic/unistd.h",),
}
"""Below /usr/include, wherever a distribution keeps them."""


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    path = next((path for name in HEADERS[machine] if (path := Path("/usr/include", name)).exists()), None)
    if path is None:
        pytest.skip("the kernel's headers are not installed")
    defined = dict(re.findall(r"#define\s+(__NR\w+)\s+(\w+)", path.read_text()))
    for name, number in known(machine).items():
        value = f"__NR_{name}"
        while value in defined:
            value = defined[value]
        if value.isdigit():
            assert int(value) == number, name
        else:
            # A header older than the call.
            assert number > 400, name
