"""Allows a program a list of system calls and refuses all others.

A calculation needs few system calls: for memory, clocks, open descriptors, and
reading files. A call that is not listed fails with EPERM, which Python raises
as PermissionError; a call newer than this file fails with ENOSYS, at which the
C library falls back to an older one. The filter works on x86-64 and 64-bit ARM.
It applies to a process with no_new_privs and to all its forks.

Some listed calls are allowed only with harmless arguments:

- open and openat only read (openat2 is not listed, since a filter cannot see
  its flags, which are in memory);
- a descriptor may not be made to send signals (F_SETOWN, FIOSETOWN); kill and
  its variants are not listed: a program could stop the process that its
  siblings are forked from;
- the only sockets are connected pairs within the process, and sendto may not
  name an address;
- mmap shares no memory: the forks of a program would change it for each other,
  and it would not count as their own;
- clone makes neither threads nor namespaces. It may make a process, since the
  worker has programs fork; RLIMIT_NPROC, which a program may not change, keeps
  a program from forking by itself.

Runs inside the sandbox's processes: standard library only.
"""

import ctypes
import os
import struct

from rstar_jax.sandbox.isolation import kernel

# Name, number on x86-64, number on 64-bit ARM (- where there is none).
_CALLS = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67,
pwrite64 18 68, close 3 57, close_range 436 436, fstat 5 80, stat 4 -,
lstat 6 -, newfstatat 262 79, statx 332 291, statfs 137 43, fstatfs 138 44,
lseek 8 62, access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -,
readlinkat 267 78, getcwd 79 17, chdir 80 49, fchdir 81 50, getdents 78 -,
getdents64 217 61, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22,
pipe 22 -, pipe2 293 59, dup 32 23, dup2 33 -, dup3 292 24,
mmap 9 222, mprotect 10 226, munmap 11 215, brk 12 214, mremap 25 216,
madvise 28 233, rt_sigaction 13 134, rt_sigprocmask 14 135,
rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137,
rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -,
restart_syscall 219 128, alarm 37 -, getitimer 36 102, setitimer 38 103,
nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113,
clock_getres 229 114, gettimeofday 96 169, time 201 -, times 100 153,
sched_yield 24 124, sched_getaffinity 204 123, getcpu 309 168, futex 202 98,
set_robust_list 273 99, rseq 334 293, getpid 39 172, getppid 110 173,
gettid 186 178, getuid 102 174, geteuid 107 175, getgid 104 176,
getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158,
getpgrp 111 -, getpgid 121 155, getsid 124 156, getrlimit 97 163,
getrusage 98 165, getpriority 140 141, sysinfo 99 179, uname 63 160,
getrandom 318 278, sendmsg 46 211, recvmsg 47 212, recvfrom 45 207,
getsockopt 55 209, getsockname 51 204, getpeername 52 205, shutdown 48 210,
fork 57 -, wait4 61 260, waitid 247 95, exit 60 93,
exit_group 231 94, open 2 -, openat 257 56, fcntl 72 25, ioctl 16 29,
prctl 157 167, prlimit64 302 261, clone 56 220, clone3 435 435,
socketpair 53 199, sendto 44 206
"""
_LAST = 450  # Higher numbers are not known here; x32 calls start at 1 << 30.

# Machine of uname -> (AUDIT_ARCH, column in the table, number of seccomp).
_MACHINES = {
  "x86_64": (0xC000003E, 1, 317),
  "aarch64": (0xC00000B7, 2, 277),
}

# Classic BPF.
_LOAD, _AND = 0x20, 0x54
_JUMP, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x05, 0x15, 0x35, 0x45, 0x06
_ALLOW = 0x7FFF0000
_EPERM, _ENOSYS = 0x00050001, 0x00050026
_Code = list[tuple[int, int, int, int]]

# O_WRONLY O_RDWR O_CREAT O_TRUNC O_APPEND __O_TMPFILE, equal on both machines.
_WRITE = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000000
# All but CLONE_PARENT, CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID and a signal:
# nothing is shared, no namespace is new.
_CLONE = 0xFFFFFFFF & ~(0x8000 | 0x01000000 | 0x00200000 | 0xFF)
_FCNTL = (0, 1, 2, 3, 4, 1030)  # F_DUPFD [GS]ETFD [GS]ETFL F_DUPFD_CLOEXEC.
# TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX.
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_SIGKILL, _AF_UNIX, _SOCK_STREAM = 9, 1, 1
# PR_GET_PDEATHSIG, PR_[GS]ET_NAME, PR_GET_DUMPABLE, PR_SET_VMA (of malloc).
_PRCTL = (2, 3, 15, 16, 0x53564D41)
_SHARED_ANONYMOUS = 0x01 | 0x20  # Of a file, which is not written, it may be.


def _low(argument: int) -> tuple[int, int, int, int]:
  """Returns the load of an argument's lower word (little-endian machines)."""
  return (_LOAD, 0, 0, 16 + 8 * argument)


def _high(argument: int) -> tuple[int, int, int, int]:
  return (_LOAD, 0, 0, 20 + 8 * argument)


def _one_of(argument: int, values: tuple[int, ...]) -> _Code:
  tests = [
    (_EQUAL, len(values) - index, 0, value)
    for index, value in enumerate(values)
  ]
  return [_low(argument), *tests, (_RETURN, 0, 0, _EPERM), *_ret(_ALLOW)]


def _none_of(argument: int, bits: int) -> _Code:
  return [
    _low(argument),
    (_ANY_BIT, 0, 1, bits),
    (_RETURN, 0, 0, _EPERM),
    (_RETURN, 0, 0, _ALLOW),
  ]


def _null(argument: int) -> _Code:
  return [
    _low(argument),
    (_EQUAL, 0, 3, 0),
    _high(argument),
    (_EQUAL, 0, 1, 0),
    (_RETURN, 0, 0, _ALLOW),
    (_RETURN, 0, 0, _EPERM),
  ]


def _ret(value: int) -> _Code:
  return [(_RETURN, 0, 0, value)]


# Checks of the calls that depend on their arguments.
_CHECKED: dict[str, _Code] = {
  "open": _none_of(1, _WRITE),
  "openat": _none_of(2, _WRITE),
  "mmap": [
    _low(3),
    (_AND, 0, 0, _SHARED_ANONYMOUS),
    (_EQUAL, 0, 1, _SHARED_ANONYMOUS),
    (_RETURN, 0, 0, _EPERM),
    (_RETURN, 0, 0, _ALLOW),
  ],
  "fcntl": _one_of(1, _FCNTL),
  "ioctl": _one_of(1, _IOCTL),
  "prlimit64": _null(2),  # No new limit: it only queries.
  "clone": _none_of(0, _CLONE),
  "clone3": _ret(_ENOSYS),  # Its flags are in memory; clone is tried next.
  "sendto": _null(4),  # No address: only to the other end.
  # A pair of datagram sockets could send to any address by sendmsg.
  "socketpair": [
    _low(0),
    (_EQUAL, 0, 4, _AF_UNIX),
    _low(1),
    (_AND, 0, 0, 0xF),
    (_EQUAL, 0, 1, _SOCK_STREAM),
    (_RETURN, 0, 0, _ALLOW),
    (_RETURN, 0, 0, _EPERM),
  ],
  # A process may set its parent-death signal, to SIGKILL only.
  "prctl": [
    _low(0),
    (_EQUAL, 0, 3, kernel.PR_SET_PDEATHSIG),
    _low(1),
    (_EQUAL, 0, 1, _SIGKILL),
    (_RETURN, 0, 0, _ALLOW),
    *_one_of(0, _PRCTL),
  ],
}


def table(machine: str) -> dict[str, int]:
  """Returns the numbers of the listed system calls.

  Args:
    machine: "x86_64" or "aarch64", as `os.uname` returns it.

  Raises:
    OSError: for any other machine.
  """
  if machine not in _MACHINES:
    raise OSError(f"no table of system calls for {machine}")
  column = _MACHINES[machine][1]
  rows = (row.split() for row in _CALLS.split(","))
  return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def assemble(machine: str) -> _Code:
  """Returns the filter as instructions (code, jump if true, if false, value).

  Args:
    machine: "x86_64" or "aarch64".

  Raises:
    OSError: for any other machine.
  """
  numbers = table(machine)
  body = {
    number: _CHECKED.get(name, _ret(_ALLOW)) for name, number in numbers.items()
  }
  # Consecutive numbers with equal code share a leaf: (first number, code).
  leaves: list[tuple[int, _Code]] = []
  for number in range(_LAST + 1):
    code = body.get(number, _ret(_EPERM))
    if not leaves or leaves[-1][1] != code:
      leaves.append((number, code))
  leaves += [(_LAST + 1, _ret(_ENOSYS)), (1 << 30, _ret(_EPERM))]
  return [
    (_LOAD, 0, 0, 4),
    (_EQUAL, 1, 0, _MACHINES[machine][0]),
    (_RETURN, 0, 0, _EPERM),
    (_LOAD, 0, 0, 0),
    *_search(leaves),
  ]


def _search(leaves: list[tuple[int, _Code]]) -> _Code:
  """Returns a binary search over the leaves: 7 jumps instead of a hundred."""
  if len(leaves) == 1:
    return leaves[0][1]
  middle = len(leaves) // 2
  below, above = _search(leaves[:middle]), _search(leaves[middle:])
  # A conditional jump spans at most 255 instructions, an unconditional one any.
  return [
    (_AT_LEAST, 0, 1, leaves[middle][0]),
    (_JUMP, 0, 0, len(below)),
    *below,
    *above,
  ]


class _Program(ctypes.Structure):
  _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


class Filter:
  """The filter for this machine, made once and installed in many processes.

  Raises:
    OSError: if there is no filter for this machine.
  """

  def __init__(self):
    if not kernel.LINUX:
      raise OSError("seccomp needs Linux")
    machine = os.uname().machine
    code = assemble(machine)
    self._number = _MACHINES.get(machine, (0, 0, 0))[2]
    self._bytes = b"".join(struct.pack("HBBI", *each) for each in code)
    self._program = _Program(len(code), self._bytes)
    self._pointer = ctypes.byref(self._program)

  def install(self) -> None:
    """Installs the filter in this process, which must have no_new_privs.

    Raises:
      OSError: if the kernel has no seccomp filters, or refuses.
    """
    # SECCOMP_FILTER_FLAG_SPEC_ALLOW: older kernels would slow the process down
    # against a side channel that is out of scope here.
    for flags in (4, 0):
      try:
        kernel.call("syscall", self._number, 1, flags, self._pointer)
        return
      except OSError as error:
        failure = error
    raise failure
