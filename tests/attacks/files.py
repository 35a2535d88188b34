"""Attacks on the file system: items 1 to 11 of the design's list."""

from attacks.model import contained, group, refused

FS = ("landlock:fs", "root")
CALLS = ("seccomp",)
HIDDEN = ("root",)

FILES = group(
    "files",
    refused("read the password file", (1,), "return open('/etc/passwd').read()", FS, bare=True),
    refused(
        "read files of the system",
        (1,),
        """
names = '/etc/passwd /etc/shadow /etc/hosts /etc/hostname /etc/machine-id /etc/resolv.conf /etc/ssh /root/.ssh'
more = '/var/log/syslog /var/lib/dpkg/status /boot /sys/kernel /usr/bin/env /etc/ssl/openssl.cnf /run/utmp'
return every((name, lambda name=name: os.open(name, os.O_RDONLY)) for name in (names + ' ' + more).split())
""",
        FS,
        bare=True,
    ),
    refused(
        "read by C",
        (1,),
        """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.fopen.restype = ctypes.c_void_p
if not libc.fopen(t['canary'].encode(), b'r'):
    raise OSError(ctypes.get_errno(), 'fopen')
""",
        FS,
        bare=True,
    ),
    refused(
        "read by the interpreter's own readers",
        (1, 2),
        """
import linecache, runpy, tokenize, zipimport, fileinput
def line():
    if linecache.getline(t['canary'], 1) == '': raise OSError('nothing')
def whole():
    try: runpy.run_path(t['canary'])
    except SyntaxError: return
def zipped():
    try: zipimport.zipimporter(t['canary'])
    except zipimport.ZipImportError: raise OSError('no archive')
return every([('line', line), ('run', whole), ('zip', zipped), ('tokens', lambda: tokenize.open(t['canary'])),
    ('input', lambda: next(iter(fileinput.input([t['canary']]))))])
""",
        FS,
    ),
    refused("read the secret of another", (2,), "return open(t['canary']).read()", FS, bare=True),
    refused(
        "read the secret by way of the standard library",
        (2,),
        """
up = os.path.dirname(os.__file__) + '/..' * 12
return open(up + t['canary']).read()
""",
        FS,
        bare=True,
    ),
    refused(
        "read the project",
        (2,),
        "return open(t['project'] + '/pyproject.toml').read()",
        FS,
        bare=True,
    ),
    refused("import the trainer", (2,), "import recall.sandbox.local", FS, errors=("ModuleNotFoundError",)),
    refused(
        "import from anywhere",
        (2,),
        "sys.path.insert(0, t['project'] + '/src')\nimport recall.errors",
        FS,
        errors=("ModuleNotFoundError", "PermissionError", "FileNotFoundError"),
    ),
    refused("load a library from anywhere", (2,), "import ctypes\nctypes.CDLL(t['canary'])", FS),
    refused(
        "list directories",
        (3,),
        """
signs = {'/': {'home', 'var', 'proc', 'sys', 'boot', 'srv'}, '/etc': {'passwd', 'hosts'}}
signs |= {'/root': {'.bashrc', '.profile'}, t['project']: {'pyproject.toml'}, t['directory']: {'canary'}}
signs |= {'/dev': {'mem', 'shm', 'ptmx'}, '/var': {'log'}}
signs |= {'/proc': {'1', 'self'}, '/sys': {'kernel'}, '/usr': {'bin', 'sbin'}, '/run': {'utmp', 'lock'}}
def look(name):
    if not signs[name] & set(os.listdir(name)): raise OSError('nothing of the host')
return every((name, lambda name=name: look(name)) for name in signs)
""",
        FS,
        bare=True,
    ),
    refused(
        "look at what cannot be opened",
        (3,),
        """
names = [t['canary'], t['project'] + '/README.md', '/etc/passwd', '/root/.ssh', '/home', '/var/log']
return every((name, lambda name=name: os.stat(name)) for name in names)
""",
        HIDDEN,
        bare=True,
    ),
    refused(
        "write the standard library",
        (4,),
        """
lib = os.path.dirname(os.__file__)
return every([('os.py', lambda: open(os.__file__, 'a')), ('new', lambda: open(lib + '/recall_attack.py', 'w')),
    ('dir', lambda: os.mkdir(lib + '/recall_attack')), ('cache', lambda: open(lib + '/__pycache__/os.pyc', 'wb')),
    ('site', lambda: open(lib + '/site-packages/recall_attack.pth', 'w')),
    ('lib', lambda: open('/usr/lib/recall_attack', 'w'))])
""",
        FS,
    ),
    refused(
        "write anywhere",
        (5,),
        """
names = [t['directory'], '/tmp', '/var/tmp', '/dev/shm', '/run', '/home', '/', '.', '/run/lock', '/dev/mqueue']
return every((name, lambda name=name: open(name + '/recall-attack', 'w').write('x')) for name in names)
""",
        FS,
    ),
    refused(
        "make a temporary file",
        (5,),
        "import tempfile\ntempfile.TemporaryFile().write(b'x')",
        FS,
    ),
    refused(
        "make a file without a name",
        (5,),
        "return every((d, lambda d=d: os.open(d, os.O_TMPFILE | os.O_RDWR)) for d in ('/', '/tmp', t['directory']))",
        FS,
    ),
    refused(
        "overwrite the canary",
        (5,),
        """
return every([('write', lambda: open(t['canary'], 'w')), ('append', lambda: open(t['canary'], 'a')),
    ('truncate', lambda: os.truncate(t['canary'], 0)), ('unlink', lambda: os.unlink(t['canary'])),
    ('rename', lambda: os.rename(t['canary'], t['canary'] + '2'))])
""",
        FS,
    ),
    refused(
        "link",
        (6, 11),
        """
there = t['directory'] + '/recall-attack'
return every([('symlink', lambda: os.symlink('/etc/passwd', there)), ('link', lambda: os.link(os.__file__, there)),
    ('tmp', lambda: os.symlink('a', '/tmp/recall-attack')), ('fifo', lambda: os.mkfifo(there))])
""",
        FS,
    ),
    refused(
        "change the root and the mounts",
        (7,),
        """
p = b'/tmp\\0'
return every([('chroot', lambda: os.chroot('/')), ('pivot_root', lambda: syscall(155, p, p)),
    ('mount', lambda: syscall(165, b'none', p, b'tmpfs', 0, 0)), ('umount', lambda: syscall(166, b'/', 2)),
    ('bind', lambda: syscall(165, p, p, 0, 4096, 0)),
    ('remount', lambda: syscall(165, b'none', b'/', 0, 32 | 4096, 0))])
""",
    ),
    refused(
        "mount by the new calls",
        (7,),
        """
return every([('open_tree', lambda: syscall(428, -100, b'/', 1)), ('fsopen', lambda: syscall(430, b'tmpfs', 0)),
    ('mount_setattr', lambda: syscall(442, -100, b'/', 0, b'\\0' * 32, 32)),
    ('fspick', lambda: syscall(433, -100, b'/', 0))])
""",
        CALLS,
    ),
    refused(
        "enter namespaces",
        (7,),
        """
flags = (0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x2000000, 0x10020000)
calls = [(hex(flag), lambda flag=flag: syscall(272, flag)) for flag in flags]
return every(calls + [('setns', lambda: syscall(308, 3, 0))])
""",
        CALLS,
    ),
    refused(
        "make device nodes",
        (8,),
        """
import stat
there = t['directory'] + '/recall-attack'
return every([('mem', lambda: os.mknod(there, stat.S_IFCHR | 0o666, os.makedev(1, 1))),
    ('disk', lambda: os.mknod(there, stat.S_IFBLK | 0o666, os.makedev(254, 0))),
    ('tmp', lambda: os.mknod('/tmp/recall-attack', stat.S_IFCHR | 0o666, os.makedev(1, 3)))])
""",
        FS,
    ),
    refused(
        "open by handle",
        (8,),
        """
import struct
handle = struct.pack('Ii', 128, 1) + b'\\0' * 128
mount = b'\\0' * 8
return every([('name_to_handle_at', lambda: syscall(303, -100, os.__file__.encode(), handle, mount, 0)),
    ('open_by_handle_at', lambda: syscall(304, -100, handle, 0))])
""",
        CALLS,
    ),
    refused(
        "open by openat2",
        (8,),
        "names = (t['canary'], '/etc/passwd')\n"
        "return every((n, lambda n=n: syscall(437, -100, n.encode(), b'\\0' * 24, 24)) for n in names)",
        (*FS, *CALLS),
        bare=True,
    ),
    refused(
        "open devices",
        (9,),
        """
names = 'shm/x kvm vda sda mem kmem port vsock vhost-vsock fuse tty tty0 console ptmx pts/0 net/tun kmsg loop-control '
names += 'loop0 full zero random input/event0 dri/card0 userfaultfd snapshot mapper/control nvidia0 cpu/0/msr'
return every((name, lambda name=name: os.open('/dev/' + name, os.O_RDWR)) for name in names.split())
""",
        FS,
    ),
    refused(
        "write a large file",
        (10,),
        "places = ('/tmp', t['directory'])\n"
        "return every((d, lambda d=d: open(d + '/recall-attack', 'wb').truncate(1 << 40)) for d in places)",
        FS,
    ),
    refused(
        "write a read-only file by its memory",
        (11,),
        """
import mmap
fd = os.open(os.__file__, os.O_RDONLY)
return every([('shared', lambda: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE | mmap.PROT_READ)),
    ('ftruncate', lambda: os.ftruncate(fd, 0)), ('fallocate', lambda: os.posix_fallocate(fd, 0, 10)),
    ('mprotect', lambda: syscall(10, id(mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ)) & 0, 4096, 3)),
    ('write', lambda: os.write(fd, b'x')), ('pwrite', lambda: os.pwrite(fd, b'x', 0))])
""",
    ),
    refused(
        "make a shared map of a read-only file writable",
        (11,),
        """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
at = libc.mmap(None, 4096, 1, 1, os.open(os.__file__, os.O_RDONLY), 0)
if libc.mprotect(at, 4096, 3): raise OSError(ctypes.get_errno(), 'mprotect')
""",
    ),
    refused(
        "change names and modes of the standard library",
        (11,),
        """
f = os.__file__
return every([('link', lambda: os.link(f, f + 'x')), ('rename', lambda: os.rename(f, f + 'x')),
    ('unlink', lambda: os.unlink(f)), ('truncate', lambda: os.truncate(f, 0))])
""",
        FS,
    ),
    refused(
        "change the metadata of the standard library",
        (11,),
        """
f = os.__file__
return every([('chmod', lambda: os.chmod(f, 0o777)), ('utime', lambda: os.utime(f, (1, 1))),
    ('chown', lambda: os.chown(f, os.getuid(), os.getgid())), ('setxattr', lambda: os.setxattr(f, 'user.x', b'1')),
    ('fchmod', lambda: os.fchmod(os.open(f, 0), 0o777))])
""",
        ("uid", "root", "seccomp"),
    ),
    refused(
        "change the metadata of the canary",
        (11,),
        """
f = t['canary']
return every([('chmod', lambda: os.chmod(f, 0o777)), ('utime', lambda: os.utime(f, (1, 1))),
    ('setxattr', lambda: os.setxattr(f, 'user.x', b'1')), ('removexattr', lambda: os.removexattr(f, 'user.x')),
    ('chown', lambda: os.chown(f, os.getuid(), -1))])
""",
        ("root", "seccomp"),
    ),
    refused(
        "splice into a read-only page",
        (11,),
        """
fd = os.open(os.__file__, os.O_RDONLY)
def pipe():
    r, w = os.pipe()
    os.splice(fd, w, 1, offset_src=0)
return every([('pipe', pipe) , ('sendfile', lambda: os.sendfile(fd, fd, 0, 10)),
    ('copy', lambda: os.copy_file_range(fd, fd, 10, 0, 100)), ('vmsplice', lambda: syscall(278, 3, 0, 0, 0))])
""",
        CALLS,
    ),
    refused(
        "learn what others read, from the page cache",
        (),
        """
import ctypes, mmap
m = mmap.mmap(os.open(os.__file__, os.O_RDONLY), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
at = ctypes.addressof(ctypes.c_char.from_buffer(m))
return every([('mincore', lambda: syscall(27, at, 4096, ctypes.create_string_buffer(8))),
    ('cachestat', lambda: syscall(451, os.open(os.__file__, 0), b'\\0' * 16, ctypes.create_string_buffer(64), 0))])
""",
        CALLS,
        bare=True,
    ),
    contained(
        "fill a directory with files of no size",
        (10,),
        """
made = 0
try:
    while made < 1_000_000:
        os.mkdir(f'/tmp/{made}')
        made += 1
except OSError:
    return made
""",
        "ok timeout",
        profile="code",
        timeout_s=5.0,
        needs=("scratch",),
    ),
    refused(
        "fill the scratch directory",
        (10,),
        "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * (1 << 20))",
        profile="code",
        needs=("scratch",),
    ),
    refused(
        "fill the scratch directory with many files",
        (10,),
        "for i in range(10 ** 6): open(f'/tmp/{i}', 'wb').write(b'x' * (1 << 20))",
        profile="code",
        needs=("scratch",),
    ),
    refused(
        "leave a larger file than the limit, sparse",
        (10,),
        "open('/tmp/x', 'wb').truncate(1 << 40)",
        profile="code",
        needs=("scratch",),
    ),
    refused(
        "run a file of the scratch directory",
        (10, 27),
        """
open('/tmp/x', 'w').write('#!/bin/sh\\n')
os.chmod('/tmp/x', 0o755)
os.execv('/tmp/x', ['x'])
""",
        profile="code",
        needs=("scratch",),
    ),
)
