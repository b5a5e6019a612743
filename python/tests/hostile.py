"""Code as a hostile model might write it. `attempt()` tries everything and tells what came of it.

Runs inside the sandbox, with every import allowed. An attempt returns something only when it got through.
"""

import os
import sys


def _attempts(target):
    """Name and function of each attempt."""
    import ctypes
    import fcntl
    import resource
    import signal
    import socket
    import stat
    import subprocess
    import threading

    libc = ctypes.CDLL(None, use_errno=True)
    canary, port, parent = target["canary"], target["port"], target["parent"]
    arm = os.uname().machine != "x86_64"

    def content(path, flags=os.O_RDONLY):
        descriptor = os.open(path, flags)
        try:
            return os.read(descriptor, 1 << 16)
        finally:
            os.close(descriptor)

    def call(number, *arguments):
        """A system call of its own number, past everything that Python checks."""
        result = libc.syscall(
            ctypes.c_long(number), *[ctypes.c_void_p(it) if isinstance(it, int) else it for it in arguments]
        )
        if result == -1:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return f"returned {result}"

    def number(x86, aarch):
        return aarch if arm else x86

    def linked(make):
        link = f"{os.environ.get('TMPDIR', '/tmp')}/link-{make.__name__}"
        make(canary, link)
        return content(link)

    def connected(family, kind, address):
        with socket.socket(family, kind) as it:
            it.settimeout(1)
            it.connect(address)
            it.send(b"canary")
            return "sent"

    def ran(start):
        started = start()
        if started == 0:
            os._exit(0)
        return started

    def inherited():
        """Descriptors beside the standard streams, which lead nowhere, and the two pipes."""
        found = []
        for descriptor in range(256):
            try:
                kind = os.fstat(descriptor).st_mode
            except OSError:
                continue
            ordinary = stat.S_ISCHR(kind) if descriptor < 3 else stat.S_ISFIFO(kind) and descriptor < 5
            if not ordinary:
                found.append(descriptor)
        return found

    def environments():
        found = [name for name, value in os.environ.items() if "canary" in value]
        for process in ("self", str(parent), "1"):
            try:
                found += [process] * (b"canary" in content(f"/proc/{process}/environ"))
            except OSError:
                continue
        return found

    def other_memory():
        with open(f"/proc/{parent}/mem", "rb") as memory:
            return memory.read(1)

    def owner_of_signals():
        reading, writing = os.pipe()
        fcntl.fcntl(reading, fcntl.F_SETOWN, parent)
        return writing

    def raised_limit():
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return "raised"

    yield "descriptors of the parent", inherited
    yield "read the canary", lambda: content(canary)
    yield "open for writing", lambda: content(canary, os.O_WRONLY | os.O_APPEND)
    yield "open by path only", lambda: content(f"/proc/self/fd/{os.open(canary, os.O_PATH)}")
    yield "read through ..", lambda: content(f"/usr/lib/../..{canary}")
    yield "read through a symlink", lambda: linked(os.symlink)
    yield "read through a hard link", lambda: linked(os.link)
    yield "read through /proc/self/root", lambda: content(f"/proc/self/root{canary}")
    yield "read through the parent's root", lambda: content(f"/proc/{parent}/root{canary}")
    yield "read through the parent's directory", lambda: os.listdir(f"/proc/{parent}/cwd")
    yield "list /proc", lambda: os.listdir("/proc")
    yield "list /", lambda: [it for it in os.listdir("/") if it in ("home", "proc", "boot", "sys")] and "seen"
    yield "list /etc", lambda: "passwd" in os.listdir("/etc") and "seen"
    yield "read /etc/passwd", lambda: content("/etc/passwd")
    yield "read /etc/shadow", lambda: content("/etc/shadow")
    yield "open in C", lambda: call(number(257, 56), -100, canary.encode(), 0)
    yield "openat2", lambda: call(437, -100, canary.encode(), ctypes.create_string_buffer(24), 24)
    yield (
        "open by handle",
        lambda: call(number(303, 264), -100, canary.encode(), ctypes.create_string_buffer(200), 0, 0),
    )
    yield "truncate", lambda: os.truncate(canary, 0) or "truncated"
    yield "change the mode", lambda: os.chmod(canary, 0o777) or "changed"
    yield "change the owner", lambda: os.chown(canary, os.getuid(), os.getgid()) or "changed"
    yield "change the times", lambda: os.utime(canary, (0, 0)) or "changed"
    yield "remove", lambda: os.unlink(canary) or "removed"
    yield "rename", lambda: os.rename(canary, canary + "x") or "renamed"
    for place in ("/tmp", "/var/tmp", "/dev/shm", "/usr/lib", os.path.dirname(canary)):
        yield (
            f"write into {place}",
            lambda place=place: open(f"{place}/hostile-{os.getpid()}", "w").write("x"),
        )
    yield "a device", lambda: content("/dev/urandom")
    yield "make a device", lambda: os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3)) or "made"

    yield "the parent's environment", environments
    yield "memory of the parent", other_memory

    yield "TCP", lambda: connected(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port))
    yield "TCP over IPv6", lambda: connected(socket.AF_INET6, socket.SOCK_STREAM, ("::1", port))
    yield "UDP", lambda: connected(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", port))
    yield "a Unix socket", lambda: connected(socket.AF_UNIX, socket.SOCK_STREAM, target["unix"])
    yield "an abstract Unix socket", lambda: connected(socket.AF_UNIX, socket.SOCK_STREAM, "\0canary")
    yield "a raw socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    yield "netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    yield "a pair of sockets", socket.socketpair
    if not arm:
        yield "a socket by the x32 interface", lambda: call(0x40000000 | 41, 2, 1, 0)

    yield "fork", lambda: ran(os.fork)
    yield "vfork", lambda: call(number(58, 220), 0)
    yield "clone", lambda: ran(lambda: libc.syscall(number(56, 220), 17, 0, 0, 0, 0)) > 0 and "cloned"
    yield "clone3", lambda: call(435, ctypes.create_string_buffer(88), 88)
    yield "a thread", lambda: threading.Thread(target=lambda: None).start() or "started"
    yield "a program", lambda: subprocess.run(["/bin/true"]).returncode == 0 and "ran"
    yield "posix_spawn", lambda: os.posix_spawn("/bin/true", ["true"], {})
    yield "exec", lambda: os.execv("/bin/true", ["true"])
    yield "exec of memory", lambda: call(number(319, 279), b"x", 0)

    yield "ptrace of the parent", lambda: call(number(101, 117), 16, parent, 0, 0)
    yield "ptrace me", lambda: call(number(101, 117), 0, 0, 0, 0)
    yield (
        "process_vm_readv",
        lambda: call(
            number(310, 270),
            parent,
            ctypes.create_string_buffer(16),
            1,
            ctypes.create_string_buffer(16),
            1,
            0,
        ),
    )
    yield "a pidfd", lambda: call(434, parent, 0)
    yield "a signal to the parent", lambda: os.kill(parent, signal.SIGCONT) or "sent"
    yield "a signal to everybody", lambda: os.kill(-1, 0) or "sent"
    yield "a descriptor's signals to the parent", owner_of_signals
    yield "priority of the parent", lambda: os.setpriority(os.PRIO_PROCESS, parent, 19) or "set"
    yield "processors of the parent", lambda: os.sched_setaffinity(parent, {0}) or "set"
    yield "limits of the parent", lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE)
    yield "a higher limit", raised_limit

    yield "become root", lambda: os.setresuid(0, 0, 0) or "became"
    yield "become another", lambda: os.setresuid(1, 1, 1) or "became"
    yield "capabilities", lambda: call(number(126, 91), b"\x20\x08\x05\x20" + bytes(4), b"\xff" * 24)
    yield "chroot", lambda: os.chroot("/") or "changed"
    yield "mount", lambda: call(number(165, 40), b"proc", b"/", b"proc", 0, 0)
    yield "fsopen", lambda: call(430, b"proc", 0)
    yield "unshare", lambda: call(number(272, 97), 0x10000000)
    yield "setns", lambda: call(number(308, 268), 0, 0)
    yield "prctl", lambda: call(number(157, 167), 22, 2, 0)
    yield "another filter", lambda: call(number(317, 277), 1, 0, 0)
    yield "bpf", lambda: call(number(321, 280), 0, ctypes.create_string_buffer(128), 128)
    yield "io_uring", lambda: call(425, 4, ctypes.create_string_buffer(120))
    yield "keyctl", lambda: call(number(250, 219), 0, -3, 1)
    yield "add_key", lambda: call(number(248, 217), b"user", b"x", b"y", 1, -3)
    yield "userfaultfd", lambda: call(number(323, 282), 0)
    yield "perf_event_open", lambda: call(number(298, 241), ctypes.create_string_buffer(128), 0, -1, -1, 0)
    yield "shared memory that stays", lambda: call(number(29, 194), 0, 4096, 0o1666)
    yield "a message queue that stays", lambda: call(number(68, 186), 0, 0o1666)
    yield "a typed key", lambda: fcntl.ioctl(0, 0x5412, b"x")
    yield "personality", lambda: call(number(135, 92), 0x0040000)
    yield "reboot", lambda: call(number(169, 142), 0xFEE1DEAD, 0x28121969, 0, 0)
    yield "swap", lambda: call(number(168, 225), b"/")
    yield "modules of the kernel", lambda: call(number(175, 105), 0, 0, 0)
    yield "the clock", lambda: call(number(227, 112), 0, ctypes.create_string_buffer(16))


def attempt(target):
    """What each attempt brought: `None` where it was stopped."""
    results, stopped = {}, {}
    try:
        attempts = list(_attempts(target))
    except (ImportError, OSError) as error:
        # Where nothing can be opened, nothing can be imported either.
        return {"results": {}, "stopped": {"everything": f"{type(error).__name__}: {error}"}}
    for name, run in attempts:
        try:
            brought = run()
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            brought, stopped[name] = None, f"{type(error).__name__}: {error}"
        results[name] = repr(brought)[:200] if brought else None
    return {"results": results, "stopped": stopped}


def fill_the_disk(target):
    """Writes until nothing takes it; the bytes and files that were taken."""
    directory = os.environ.get("TMPDIR")
    total = files = 0
    if directory is None:
        return {"bytes": 0, "files": 0}
    for index in range(100_000):
        try:
            with open(f"{directory}/{index}", "wb", buffering=0) as file:
                files += 1
                while True:
                    total += file.write(bytes(1 << 20))
        except OSError:
            if not os.path.exists(f"{directory}/{index}"):
                break
    return {"bytes": total, "files": files}


def take_memory(target):
    """Takes memory for ever."""
    taken = []
    while True:
        taken.append(bytes(1 << 20))


def take_memory_past_python(target):
    """Maps memory for ever, without the interpreter's knowledge."""
    import mmap

    taken = []
    try:
        while len(taken) < 100_000:
            taken.append(mmap.mmap(-1, 1 << 20))
    except (OSError, MemoryError):
        pass
    return len(taken)


def spin(target):
    """Never ends."""
    while True:
        pass


def sleep(target):
    """Sleeps for ever, whatever wakes it."""
    import signal
    import time

    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True:
        time.sleep(1000)


def overflow(target):
    """Runs out of stack."""
    import ctypes

    sys.setrecursionlimit(10**9)
    nested = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    callback = nested(lambda depth: callback(depth + 1))
    return callback(0)


def old_calls(target):
    """A system call by the interface of 32-bit programs."""
    import ctypes
    import mmap

    # mov eax, 359 (socket); mov ebx, 2; mov ecx, 1; xor edx, edx; int 0x80; ret
    code = b"\xb8\x67\x01\x00\x00\xbb\x02\x00\x00\x00\xb9\x01\x00\x00\x00\x31\xd2\xcd\x80\xc3"
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


def flood(target):
    """Prints without end, and returns more than may cross."""
    for _ in range(1000):
        print("x" * 100_000)
    return "y" * (1 << 26)


def forge(target):
    """Writes a frame of its own for an answer, with a length that is a lie."""
    os.write(4, b"\xff\xff\xff\xff{}")
    return 1


def forge_an_answer(target):
    """Writes an answer that nobody asked for, before the real one."""
    data = b'{"id":999999,"value":1,"printed":""}'
    os.write(4, len(data).to_bytes(4, "big") + data)
    return 1


def forge_a_type(target):
    """Answers with a type that would be looked up by its name, if anything were."""
    data = b'{"id":2,"value":{"$type":"os.system","value":"true"},"printed":""}'
    os.write(4, len(data).to_bytes(4, "big") + data)
    os._exit(0)


def close_everything(target):
    """Leaves the parent without an answer."""
    os.closerange(0, 256)
    while True:
        pass
