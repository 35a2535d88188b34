"""Attacks by rare system calls: items 30 to 34 of the design's list, one attack for each call. x86-64 only."""

from attacks.model import Attack, contained, group, refused

CALLS = ("seccomp",)
BUFFER = "import ctypes\nb = ctypes.create_string_buffer(4096)\n"

# Arguments are such that a call that is let through either fails with another error than a refusal, or does no harm:
# the numbers that `reboot` wants are wrong, files and modules do not exist.
RARE: tuple[tuple[int, str, int, str], ...] = (
    (31, "bpf", 321, "0, b, 120"),
    (31, "io_uring_setup", 425, "4, b"),
    (31, "io_uring_enter", 426, "3, 1, 1, 0, 0, 0"),
    (31, "io_uring_register", 427, "3, 0, b, 1"),
    (31, "userfaultfd", 323, "0"),
    (31, "perf_event_open", 298, "b, 0, -1, -1, 0"),
    (31, "modify_ldt", 154, "0, b, 8"),
    (31, "iopl", 172, "3"),
    (31, "ioperm", 173, "0, 1, 1"),
    (31, "init_module", 175, "b, 10, b"),
    (31, "finit_module", 313, "3, b, 0"),
    (31, "delete_module", 176, "b'recall_attack', 0"),
    (31, "kexec_load", 246, "0, 0, 0, 0"),
    (31, "kexec_file_load", 320, "3, 3, 0, b, 0"),
    (31, "reboot", 169, "1, 2, 3, 0"),
    (31, "swapon", 167, "b'/recall-attack', 0"),
    (31, "swapoff", 168, "b'/recall-attack'"),
    (31, "acct", 163, "b'/recall-attack'"),
    (31, "quotactl", 179, "0x800002 << 8, b'/dev/vda', 0, b"),
    (31, "quotactl_fd", 443, "3, 0, 0, b"),
    (31, "syslog", 103, "3, b, 4096"),
    (31, "vhangup", 153, ""),
    (31, "personality", 135, "0x0040000"),
    (31, "mbind", 237, "0, 0, 0, 0, 0, 0"),
    (31, "set_mempolicy", 238, "0, 0, 0"),
    (31, "get_mempolicy", 239, "b, 0, 0, 0, 0"),
    (31, "lookup_dcookie", 212, "0, b, 8"),
    (31, "ustat", 136, "0, b"),
    (31, "sysfs", 139, "3"),
    (31, "uselib", 134, "b'/recall-attack'"),
    (31, "vmsplice", 278, "1, 0, 0, 0"),
    (31, "tee", 276, "0, 1, 1, 0"),
    (31, "splice", 275, "0, 0, 1, 0, 1, 0"),
    (31, "fanotify_mark", 301, "3, 1, 1, -100, b"),
    (31, "io_setup", 206, "1, b"),
    (31, "pkey_alloc", 330, "0, 0"),
    (31, "remap_file_pages", 216, "0, 0, 0, 0, 0"),
    (31, "mlockall", 151, "3"),
    (31, "timer_create", 222, "0, 0, b"),
    (31, "statmount", 457, "b, b, 64, 0"),
    (31, "listmount", 458, "b, b, 8, 0"),
    (31, "lsm_list_modules", 461, "b, b, 0"),
    (31, "lsm_set_self_attr", 460, "100, b, 32, 0"),
    (31, "process_mrelease", 448, "3, 0"),
    (31, "map_shadow_stack", 453, "0, 4096, 0"),
    (33, "seccomp", 317, "2, 0, b"),
    (33, "landlock_create_ruleset", 444, "0, 0, 1"),
    (33, "landlock_restrict_self", 446, "3, 0"),
    (33, "prctl(PR_SET_DUMPABLE)", 157, "4, 1, 0, 0, 0"),
    (33, "prctl(PR_SET_PDEATHSIG)", 157, "1, 0, 0, 0, 0"),
    (33, "prctl(PR_SET_PTRACER)", 157, "0x59616d61, -1, 0, 0, 0"),
    (33, "prctl(PR_SET_CHILD_SUBREAPER)", 157, "36, 1, 0, 0, 0"),
    (33, "prctl(PR_SET_SECCOMP)", 157, "22, 2, b, 0, 0"),
    (33, "prctl(PR_SET_MM)", 157, "35, 1, 0, 0, 0"),
    (33, "prctl(PR_SET_KEEPCAPS)", 157, "8, 1, 0, 0, 0"),
    (34, "clock_settime", 227, "0, b"),
    (34, "settimeofday", 164, "b, 0"),
    (34, "adjtimex", 159, "b"),
    (34, "clock_adjtime", 305, "0, b"),
    (34, "sethostname", 170, "b'recall-attack', 13"),
    (34, "setdomainname", 171, "b'recall-attack', 13"),
)

ABI = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(CODE)
ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
return 'ESCAPED'
"""


def _rare(item: int, name: str, number: int, arguments: str) -> Attack:
    call = f"syscall({number}, {arguments})" if arguments else f"syscall({number})"
    return refused(f"system call {name}", (item,), BUFFER + f"return {call}", CALLS)


KERNEL = group(
    "kernel",
    *(_rare(*row) for row in RARE),
    contained(
        "system calls of 32 bits",
        (32,),
        # mov eax, 20 (getpid); int 0x80; ret
        ABI.replace("CODE", "bytes.fromhex('b814000000cd80c3')"),
        "crashed",
        needs=CALLS,
    ),
    contained(
        "system calls of 32 bits, with the signal caught",
        (32,),
        "import signal\nsignal.signal(signal.SIGSYS, lambda *_: None)\n"
        + ABI.replace("CODE", "bytes.fromhex('b814000000cd80c3')"),
        "crashed",
        needs=CALLS,
    ),
    contained("system calls of x32", (32,), "return syscall(0x40000000 + 39)", "crashed exception", needs=CALLS),
    contained(
        "fork by a system call of 32 bits",
        (26, 32),
        # mov eax, 2 (fork); int 0x80; ret
        ABI.replace("CODE", "bytes.fromhex('b802000000cd80c3')"),
        "crashed",
        needs=CALLS,
        forks=True,
    ),
    contained(
        "every system call that there is, with arguments of nothing",
        (31,),
        """
# Those that end the process, wait, or take its memory away.
ends = {0, 1, 3, 7, 9, 10, 11, 12, 15, 23, 25, 34, 35, 60, 61, 128, 130, 202, 219, 230, 231, 232, 270, 271, 281, 436,
    441, 449}
for number in range(480):
    if number not in ends:
        try: syscall(number, -1, -1, -1, -1, -1, -1)
        except OSError: pass
""",
        "ok crashed exception timeout",
        errors=("PermissionError", "OSError", "ValueError", "MemoryError", "SystemError"),
    ),
)
