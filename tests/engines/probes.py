"""Attacks, run inside a sandbox. Each prints OPEN when it gets through, else CLOSED.

Each entry is Python code that gets `facts` (what the test planted on the host) and
ends normally when the attack worked; any exception means that it was stopped.
"""

from __future__ import annotations

HEAD = """
import ctypes, json, os, signal, socket, sys
facts = json.load(open("facts"))  # in no process's arguments
libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"

def must(condition):
    if not condition:
        raise AssertionError("stopped")

def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return dict(line.split(":", 1) for line in lines)[name].split()

def attack():
"""
TAIL = """

try:
    attack()
except BaseException as error:
    print(f"CLOSED {type(error).__name__}: {error}")
else:
    print("OPEN")
"""


def program(body: str) -> str:
    """A whole program from a probe's body."""
    return HEAD + "".join(f"    {line}\n" for line in body.strip().splitlines()) + TAIL


REACHES_THE_HOST = {
    "a file in the real home": "open(facts['canary']).read()",
    "the gateway's token": "open(facts['token']).read()",
    "another session's workspace": "os.listdir(facts['other'])",
    "another session's files": "open(facts['other'] + '/secret').read()",
    "the host's user database": "must(facts['user'] in open('/etc/passwd').read().split(chr(10)))",
    "a host process's arguments": (
        "must(any(facts['marker'] in open(f'/proc/{p}/cmdline').read()"
        " for p in os.listdir('/proc') if p.isdigit()))"
    ),
    "a host process by its pid": "os.stat(f\"/proc/{facts['pid']}\"); must(facts['marker'] in "
    "open(f\"/proc/{facts['pid']}/cmdline\").read())",
    "a port on the host's loopback": (
        "socket.create_connection(('127.0.0.1', facts['port']), timeout=5)"
    ),
    "an abstract socket of the host": (
        "socket.socket(socket.AF_UNIX).connect(chr(0) + facts['abstract'])"
    ),
    "host paths in arguments": (
        "must(any(facts['base'] in open(f'/proc/{p}/cmdline').read()"
        " for p in os.listdir('/proc') if p.isdigit()))"
    ),
    "new files in the host's root": "must(os.access('/', os.W_OK) or os.path.exists('/boot'))",
    "unbounded /tmp": (
        "size = os.statvfs('/tmp'); must(size.f_blocks * size.f_frsize > facts['tmp'])"
    ),
    "unbounded /dev/shm": (
        "size = os.statvfs('/dev/shm'); must(size.f_blocks * size.f_frsize > facts['tmp'])"
    ),
    "new privileges": "must(status('NoNewPrivs') == ['0'])",
    "unfiltered system calls": "must(status('Seccomp') == ['0'])",
    "unlimited processes": "import resource; must(not 0 < resource.getrlimit("
    "resource.RLIMIT_NPROC)[0] <= facts['processes'])",
}
"""Each gets through on an engine that isolates nothing, whoever runs the gateway."""

NEEDS_ROOT = {
    "the uid of root": "must(os.getuid() == 0 and '0' in status('Uid'))",
    "the uid of the host's root": "must(facts['host_uid'] == 0)",
    "capabilities": "must(any(int(status(c)[0], 16) for c in ('CapPrm', 'CapEff')))",
    "capabilities to regain": (
        "must(any(int(status(c)[0], 16) for c in ('CapInh', 'CapBnd', 'CapAmb')))"
    ),
    "the kernel's settings": "open('/proc/sys/kernel/core_pattern', 'r+')",
    "writing to /usr": "must(os.access('/usr', os.W_OK))",
    "writing to the image": "must(os.access(facts['image'], os.W_OK))",
    "writing to the interpreter": "must(os.access(facts['base_prefix'], os.W_OK))",
    "devices": "must(os.access('/dev', os.W_OK))",
    "shadow": "open('/etc/shadow').read()",
    "mounting": "must(libc.mount(b'none', facts['mountpoint'].encode(), b'tmpfs', 0, None) == 0)",
}
"""These get through without isolation only when the gateway is root."""

MAY_BE_CLOSED_ANYWAY = {
    "a user namespace by unshare": "must(libc.unshare(0x10000000) == 0)",
    "a user namespace by clone": (
        "pid = call(56 if X86 else 220, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)\n"
        "if pid == 0: os._exit(0)"
    ),
    "a user namespace by clone3": (
        "arguments = (ctypes.c_uint64 * 11)(0x10000000, 0, 0, 0, signal.SIGCHLD)\n"
        "pid = call(435, arguments, ctypes.sizeof(arguments))\n"
        "if pid == 0: os._exit(0)"
    ),
    "a mount namespace": "must(libc.unshare(0x00020000) == 0)",
    "the kernel's trigger": "open('/proc/sysrq-trigger', 'w')",
    "the new mount calls": "call(430, b'tmpfs', 0)",
    "the kernel's keyrings": "call(250 if X86 else 219, 0, -3, 0)",
    "the list of keys": "must(open('/proc/keys').read())",
    "the count of keys": "must(open('/proc/key-users').read())",
    "eBPF": "call(321 if X86 else 280, 0, bytes(128), 128)",
    "io_uring": "call(425, 8, ctypes.create_string_buffer(120))",
    "performance counters": (
        "attributes = ctypes.create_string_buffer(bytes([1, 0, 0, 0, 128]), 128)\n"
        "call(298 if X86 else 241, attributes, 0, -1, -1, 0)"
    ),
    "userfaultfd": "call(323 if X86 else 282, 0)",
    "the hypervisor's sockets": "socket.socket(40, socket.SOCK_STREAM)",
    "the kernel's cryptography": "socket.socket(38, socket.SOCK_SEQPACKET)",
    "the kernel's log": "call(103 if X86 else 116, 3, ctypes.create_string_buffer(16), 16)",
    "file handles": "call(304 if X86 else 265, -1, bytes(16), 0)",
    "x32 calls": "must(X86); call(0x40000000 | 39)",
    "the agent's memory": "open('/proc/1/mem', 'rb')",
    "the agent's files": "os.listdir('/proc/1/fd')",
    "the agent's stream": (
        "s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(facts['agent'])\n"
        's.sendall(b\'{"id": 1, "op": "list"}\\n\'); must(s.recv(1))'
    ),
    "pip's configuration of the image": "must(facts['index'] in open(facts['pip_conf']).read())",
}
"""A host may have closed these by itself, so nothing is expected without isolation."""

ALL = REACHES_THE_HOST | NEEDS_ROOT | MAY_BE_CLOSED_ANYWAY
