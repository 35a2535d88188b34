"""Attacks by the network and other sockets: items 23, 24 and 35 to 38 of the design's list."""

from attacks.model import contained, group, refused, stopped

CALLS = ("seccomp",)
CLOSED = ("network", "seccomp")
TCP = ("network", "landlock:tcp", "seccomp")

NETWORK = group(
    "network",
    refused(
        "open a socket of any family",
        (35,),
        """
import socket
kinds = (1, 2, 3, 5, 10)
families = [1, 2, 10, 16, 17, 38, 40, 15, 29, 30, 31, 44, 4, 9]
calls = [(f'{f}/{k}', lambda f=f, k=k: socket.socket(f, k).close()) for f in families for k in kinds]
return every(calls + [('pair', lambda: socket.socketpair()), ('raw', lambda: socket.socket(2, 3, 1))])
""",
        CALLS,
        bare=True,
    ),
    refused(
        "connect by TCP",
        (36,),
        """
import socket
socket.create_connection(('127.0.0.1', t['tcp']), 1)
""",
        TCP,
        bare=True,
    ),
    refused(
        "send by UDP",
        (36,),
        "import socket\nsocket.socket(2, 2).sendto(b'x', ('127.0.0.1', t['udp']))",
        CLOSED,
        bare=True,
    ),
    refused(
        "send with the first packet of TCP",
        (36,),
        "import socket\nsocket.socket(2, 1).sendto(b'x', 0x20000000, ('127.0.0.1', t['tcp']))",
        CLOSED,
        bare=True,
    ),
    refused("listen", (36,), "import socket\nsocket.create_server(('127.0.0.1', 0))", TCP, bare=True),
    refused(
        "fetch a page",
        (36,),
        "import urllib.request\nurllib.request.urlopen(f\"http://127.0.0.1:{t['tcp']}/\", timeout=1)",
        TCP,
        errors=("PermissionError", "OSError", "URLError"),
    ),
    refused(
        "look up a name",
        (36,),
        "import socket\nsocket.getaddrinfo('example.com', 80)",
        CLOSED,
        errors=("PermissionError", "OSError", "gaierror"),
    ),
    refused(
        "run an event loop that talks",
        (36,),
        "import asyncio\nasyncio.run(asyncio.open_connection('127.0.0.1', t['tcp']))",
        TCP,
    ),
    refused(
        "connect to a socket of a path",
        (38,),
        "import socket\nsocket.socket(1, 1).connect(t['unix'])",
        CALLS,
        bare=True,
    ),
    refused(
        "connect to an abstract socket",
        (38,),
        "import socket\nsocket.socket(1, 1).connect('\\0' + t['abstract'])",
        ("network", "landlock:scope", "seccomp"),
        bare=True,
    ),
    refused(
        "connect to services of the host",
        (38,),
        """
import socket
names = ['/var/run/docker.sock', '/run/containerd/containerd.sock', '/run/systemd/private',
    '/run/dbus/system_bus_socket', '/run/systemd/notify', '/dev/log',
    '/run/nscd/socket', '/run/user/0/bus', '/tmp/.X11-unix/X0']
return every((name, lambda name=name: socket.socket(1, 1).connect(name)) for name in names)
""",
    ),
    refused(
        "pass descriptors on the channel",
        (23,),
        """
import array, socket, struct
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=3)
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))]
try: return every([('sendmsg', lambda: s.sendmsg([b'x'], rights)),
    ('recvmsg', lambda: s.recvmsg(1, 64, socket.MSG_DONTWAIT)),
    ('sendmmsg', lambda: syscall(307, 3, b'\\0' * 64, 1, 0)),
    ('recvmmsg', lambda: syscall(299, 3, b'\\0' * 64, 1, 64, 0))])
finally: s.detach()
""",
        CALLS,
    ),
    contained(
        "treat the channel as a socket",
        (23,),
        """
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=3)
try: return every([('peer', lambda: s.getsockopt(1, 17, 12)), ('connect', lambda: s.connect(t['unix'])),
    ('bind', lambda: s.bind('\\0recall-attack-2')), ('listen', lambda: s.listen(1)),
    ('buffer', lambda: s.setsockopt(1, 7, 1 << 24)), ('name', s.getpeername), ('shutdown', lambda: s.shutdown(2))])
finally: s.detach()
""",
        "exception crashed",
        needs=CALLS,
    ),
    contained("shut the channel down", (23, 77), "syscall(48, 3, 2)", "crashed exception"),
    refused(
        "type into a terminal",
        (24,),
        """
import fcntl
codes = {'TIOCSTI': 0x5412, 'TIOCSCTTY': 0x540e, 'TIOCCONS': 0x541d, 'TIOCLINUX': 0x541c, 'FIOASYNC': 0x5452,
    'FIOSETOWN': 0x8901, 'SIOCSPGRP': 0x8902, 'SIOCGIFCONF': 0x8912, 'TIOCSPGRP': 0x5410, 'RNDADDTOENTCNT': 0x40045201}
calls = [(f'{n} {fd}', lambda c=c, fd=fd: fcntl.ioctl(fd, c, b'\\0' * 16)) for n, c in codes.items() for fd in (0, 3)]
return every(calls)
""",
        CALLS,
    ),
    stopped(
        "wait for a socket",
        (36,),
        "import select\nselect.select([0, 3], [], [3][:0])\nwhile True: select.select([3], [], [])",
    ),
)
