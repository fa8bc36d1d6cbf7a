"""Programs that attack their own process or worker; see `hostile.py`."""

from tests.sandbox.hostile import cases

INTERPRETER = [
  *cases(
    "interpreter",
    "blocked",
    subclasses=(
      "w = [c for c in object.__subclasses__() if c.__name__ == '_wrap_close']"
      "\nw[0].__init__.__globals__['system']('true')"
    ),
    import_by_name="__import__('o' + 's').__dict__['sys' + 'tem']('true')",
    exec_in_eval="eval(\"exec('import os; os.system(1 and chr(116))')\")",
    code_module="import code; code.InteractiveInterpreter().runsource(\n"
    "'import os; os.system(\"true\")')\nimport os; os.system('true')",
    timeit="import timeit; timeit.timeit('os.system(\"true\")', 'import os')",
    loader="import importlib.util as u, os\n"
    "u.spec_from_file_location('x', os.__file__).loader.get_data("
    "'/etc/passwd')",
    linecache_read="open(__import__('linecache').__file__, 'a')",
  ),
  *cases(
    "interpreter",
    "error",
    deleted_import="import builtins; del builtins.__import__; import os",
    modules_none="import sys; sys.modules['math'] = None; import math",
    getattr_chain="().__class__.__bases__[0].__subclasses__()[-1].nothing_here",
    stdin_read="input()",
    stdin_gone="import sys; sys.stdin.close(); input()",
    stdout_string="import sys; sys.stdout = 'x'; print(1)",
    frozen_type="int.__add__ = None",
    bad_code="exec((lambda: 0).__code__.replace(co_names=5))",
    marshal_junk="import marshal; marshal.loads(b'\\xe3junk')",
  ),
  *cases(
    "interpreter",
    "error crashed",
    no_builtins="__builtins__.clear(); print(1)",
    no_builtins_left="import builtins; vars(builtins).clear()",
  ),
  *cases(
    "interpreter",
    "ok",
    frames=(
      "import sys\nf = sys._getframe()\nwhile f: f, n = f.f_back, 1\nprint(n)",
      "1\n",
    ),
    trace=("import sys; sys.settrace(lambda *a: None); print(2)", "2\n"),
    no_stdout=("import sys; sys.stdout = None; print(3)", ""),
    excepthook=("import sys; sys.excepthook = None; print(4)", "4\n"),
    displayhook=("import sys; sys.displayhook = None; 5\nprint(5)", "5\n"),
    gc_off=("import gc; gc.disable(); gc.set_threshold(0); print(6)", "6\n"),
    gc_all=("import gc; print(len(gc.get_objects()) >= 0)", "True\n"),
    switch=("import sys; sys.setswitchinterval(1e-9); print(7)", "7\n"),
    main_gone=("import sys; del sys.modules['__main__']; print(8)", "8\n"),
    renamed=("__name__ = 'x'; print(__name__)", "x\n"),
    tracing_malloc=("import tracemalloc; tracemalloc.start(); print(9)", "9\n"),
  ),
]

LOOPS = [
  *cases(
    "loops",
    "timeout",
    plain="while True: pass",
    swallow="while True:\n  try:\n    while True: pass\n"
    "  except BaseException: pass",
    c_sum="sum(range(10**15))",
    c_max="import itertools; max(itertools.count())",
    c_any="import itertools; any(itertools.repeat(0))",
    c_in="import itertools; -1 in itertools.count()",
    c_deque="import collections, itertools\n"
    "collections.deque(itertools.count(), maxlen=0)",
    power="print(7 ** 10**8 % 10)",
    factorial="import math; print(math.factorial(10**7) % 7)",
    pattern="import re; re.match('(a+)+$', 'a' * 64 + 'b')",
    sleep="import time; time.sleep(10**6)",
    sleeps="import time\nwhile True: time.sleep(0.01)",
    event="import threading; threading.Event().wait()",
    lock="import threading; l = threading.Lock(); l.acquire(); l.acquire()",
    select="import select; select.select([], [], [])",
    pause="import signal; signal.pause()",
    generator="def f():\n  while True: yield\nlist(None for _ in f() if _)",
    own_iterator="class A:\n  def __iter__(self): return self\n"
    "  def __next__(self): return 0\nsum(A())",
    hash_of="class A:\n  def __hash__(self):\n    while True: pass\n{A()}",
    compare="class A:\n  def __lt__(self, o):\n    while True: pass\n"
    "sorted([A(), A()])",
    string_of="class A(Exception):\n  def __str__(self):\n"
    "    while True: pass\nraise A",
    finaliser="class A:\n  def __del__(self):\n    while True: pass\nA(); 1",
    sympy="import sympy; sympy.factorint(2**521 * 3 + 2**607 - 1)",
    descriptor="import os\nwhile True: os.write(1, b'x' * 4096)",
    later_step=["x = 1", "y = x + 1", "while y: pass"],
    lines="import sys\nwhile True: sys.stderr.write('x' * 999)",
  ),
]

RECURSION = [
  *cases(
    "recursion",
    "error",
    function="def f(n): return f(n + 1)\nf(0)",
    mutual="def f(): g()\ndef g(): f()\nf()",
    attribute="class A:\n  def __getattr__(self, n): return getattr(self, n)\n"
    "A().x",
    repr="l = []\nfor _ in range(10**5): l = [l]\nrepr(l)",
    nesting="eval('(' * 10**5 + ')' * 10**5)",
    lambdas="f = lambda: f()\nf()",
    json="import json; json.loads('[' * 10**5)",
  ),
  *cases(
    "recursion",
    "error memory crashed",
    unary="eval('-' * 10**6 + '1')",
    sums="compile('1' + '+1' * 10**6, 'x', 'eval')",
    pickled="import pickle\nl = []\nfor _ in range(10**5): l = [l]\n"
    "pickle.dumps(l)",
  ),
  *cases(
    "recursion",
    "error memory crashed timeout",
    no_limit="import sys; sys.setrecursionlimit(2**31 - 1)\n"
    "def f(): return f()\nf()",
    no_limit_c="import sys; sys.setrecursionlimit(2**31 - 1)\n"
    "class A:\n  def __repr__(self): return repr([self])\nrepr(A())",
  ),
]

SIGNALS = [
  *cases(
    "signals",
    "timeout",
    ignore_all="import signal\nfor n in signal.valid_signals() - {9, 19}:\n"
    "  signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
    handle_cpu="import signal\nsignal.signal(signal.SIGXCPU, lambda *a: 0)\n"
    "while True: pass",
    mask="import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, "
    "signal.valid_signals())\nwhile True: pass",
    alarm_off="import signal; signal.alarm(0)\nwhile True: pass",
    wait="import signal; signal.sigwait({signal.SIGUSR1})",
  ),
  *cases(
    "signals",
    "crashed",
    alarm="import signal; signal.alarm(1); signal.pause()",
    timer="import signal; signal.setitimer(signal.ITIMER_REAL, 0.01)\n"
    "while True: pass",
  ),
  *cases(
    "signals",
    "ok",
    handled=(
      "import signal\nsignal.signal(signal.SIGALRM, lambda *a: print('rang'))\n"
      "signal.setitimer(signal.ITIMER_REAL, 0.01)\nsignal.pause()",
      "rang\n",
    ),
  ),
  *cases(
    "signals",
    "blocked",
    itself="import os; os.kill(os.getpid(), 9)",
    stop="import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    user="import os, signal\n"
    "signal.signal(signal.SIGUSR1, lambda *a: print('user'))\n"
    "os.kill(os.getpid(), signal.SIGUSR1)",
  ),
  # Without an audit event: only seccomp refuses them.
  *cases(
    "signals",
    "blocked error crashed",
    interrupt="import signal; signal.raise_signal(signal.SIGINT)",
    raised="import signal; signal.raise_signal(signal.SIGSEGV)",
  ),
]

EXITS = [
  *cases(
    "exits",
    "error",
    exit="exit(0)",
    quit="quit()",
    sys_exit="import sys; sys.exit(0)",
    system_exit="raise SystemExit(3)",
    keyboard="raise KeyboardInterrupt",
    base="class E(BaseException): pass\nraise E('no')",
    group="raise ExceptionGroup('two', [ValueError(1), KeyError(2)])",
    generator_exit="raise GeneratorExit",
    bad_str="class E(Exception):\n"
    "  def __str__(self): raise SystemExit\nraise E",
    bad_repr="class E(Exception):\n  def __str__(self): return 5\nraise E",
    long_message="raise ValueError('x' * 10**6)",
    chain="try:\n  1 / 0\n"
    "except ZeroDivisionError as e:\n  raise KeyError from e",
    in_thread_name="raise RuntimeError('error: blocked timeout memory')",
  ),
  *cases(
    "exits",
    "crashed",
    os_exit="import os; os._exit(0)",
    os_exit_later=["x = 1", "import os", "os._exit(7)"],
    abort="import os; os.abort()",
    segfault="import faulthandler; faulthandler._read_null()",
    closed_range="import os; os.closerange(0, 4096); print(5)",
    strided="import numpy as np\n"
    "a = np.lib.stride_tricks.as_strided(np.zeros(1), (1 << 30,), (1 << 16,))\n"
    "a.sum()",
  ),
  *cases(
    "exits",
    "ok",
    at_exit=("import atexit; atexit.register(print, 'late'); print(1)", "1\n"),
    caught=("try:\n  exit(1)\nexcept SystemExit:\n  print('in')", "in\n"),
    deleted=("class A:\n  def __del__(self): 1 / 0\nA(); print(2)", "2\n"),
    words=("print('error: timeout, MemoryError: crashed')", None),
  ),
]

_SHARE = "import mmap, sys\nm = mmap.mmap(-1, 100 << 20)"
MEMORY = [
  *cases(
    "memory",
    "memory",
    array="x = bytearray(1 << 40)",
    string="x = 'a' * (1 << 40)",
    doubled="x = 'ab'\nwhile True: x += x",
    appended="x = []\nwhile True: x.append(' ' * 10**6)",
    dictionary="d = {}\nfor i in range(10**9): d[i] = bytes(1000)",
    grown=["x = [0]", "while True: x = x + x"],
    of_list="x = list(range(10**9))",
    generator="x = sorted(i for i in range(10**9))",
    numpy="import numpy as np; x = np.ones(1 << 36)",
    numpy_many="import numpy as np\nx = []\n"
    "while True: x.append(np.ones(1 << 20))",
    shifted="x = 1 << (1 << 40)",
    joined="x = ','.join('a' * 10**6 for _ in range(10**5))",
    comprehension="x = [[0] * 10**6 for _ in range(10**4)]",
    raised="raise MemoryError",
    buffer="import io; b = io.BytesIO()\nwhile True: b.write(b'x' * 10**7)",
    closures="x = None\n"
    "while True: x = (lambda y: lambda: y)([x, [0] * 10**5])",
    deque="import collections\nd = collections.deque()\n"
    "while True: d.extend(['y' * 10**6])",
    mapped="import mmap; mmap.mmap(-1, 1 << 42, flags=mmap.MAP_PRIVATE)",
  ),
  # Memory that its forks would share, and that would not count as theirs.
  *cases(
    "memory",
    "blocked",
    shared=[f"{_SHARE}\nm[0] = 7", "m[0] = 42", "print(m[0])"],
    shared_and_hidden=[
      f"{_SHARE}\nm[0] = 7\ndel sys.modules['mmap']",
      "print(m[0])",
    ],
    shared_and_large=f"{_SHARE}\nfor i in range(0, 100 << 20, 4096): m[i] = 1",
    shared_segment="from multiprocessing.shared_memory import SharedMemory\n"
    "SharedMemory(create=True, size=9)",
  ),
  *cases(
    "memory",
    "ok",
    caught=(
      "try:\n  bytearray(1 << 40)\nexcept MemoryError:\n  print(1)",
      "1\n",
    ),
    freed=("for _ in range(50): bytearray(10**8)\nprint(2)", "2\n"),
  ),
  *cases(
    "memory",
    "memory error timeout",
    held="x = []\nwhile True:\n  try:\n"
    "    x.append(bytearray(10**7))\n  except MemoryError: pass",
  ),
]

OUTPUT = [
  *cases(
    "output",
    "output_limit",
    once="print('a' * 10**6)",
    many="for i in range(10**6): print(i)",
    endless="while True: print('y')",
    swallowed="while True:\n  try: print('z' * 999)\n  except BaseException: 0",
    written="import sys\nwhile True: sys.stdout.write('w')",
    binary="import sys\nwhile True: sys.stdout.buffer.write(b'w' * 999)",
    recursion="def f(n):\n  print('r' * 999); f(n + 1)\n"
    "import sys; sys.setrecursionlimit(9999); f(0)",
    handled="import sys\nfor _ in range(9):\n  try: print('h' * 99999)\n"
    "  except BaseException as e: last = e",
  ),
  *cases(
    "output",
    "ok",
    to_stderr=(
      "import sys; print('e' * 10**6, file=sys.stderr); print(1)",
      "1\n",
    ),
    to_descriptor=("import os; os.write(1, b'x' * 10**6); print(2)", "2\n"),
    earlier=(["print('a' * 30000)", "print('b' * 30000)"], "b" * 30000 + "\n"),
    closed=("import sys; print(3); sys.stdout.close()", "3\n"),
    no_newline=("print('a\\0b\\rc', end='')", "a\0b\rc"),
    marks=("print('<output>7<end_of_output>')", "<output>7<end_of_output>\n"),
    warned=("import warnings; warnings.warn('x' * 999); print(4)", "4\n"),
  ),
]

CASES = (
  *INTERPRETER,
  *LOOPS,
  *RECURSION,
  *SIGNALS,
  *EXITS,
  *MEMORY,
  *OUTPUT,
)
