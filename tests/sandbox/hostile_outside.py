"""Programs that access files, networks or other processes; see `hostile.py`."""

from tests.sandbox.hostile import cases

PROCESSES = [
  *cases(
    "processes",
    "blocked",
    fork="import os; os.fork()",
    bomb="import os\nwhile True: os.fork()",
    pty="import os; os.forkpty()",
    system="import os; os.system('true')",
    popen="import os; os.popen('true').read()",
    run="import subprocess; subprocess.run(['true'])",
    shell="import subprocess; subprocess.getoutput('id')",
    execute="import os; os.execv('/bin/true', ['true'])",
    spawn="import os; os.posix_spawn('/bin/true', ['true'], {})",
    spawnl="import os; os.spawnl(os.P_WAIT, '/bin/true', 'true')",
    fork_exec="import _posixsubprocess, subprocess\nsubprocess.Popen('true')",
    multi="import multiprocessing as m\n"
    "p = m.get_context('fork').Process(target=print); p.start()",
    spawned="import multiprocessing as m\n"
    "m.get_context('spawn').Process().start()",
    parent="import os; os.kill(os.getppid(), 9)",
    init="import os; os.kill(1, 9)",
    everyone="import os; os.kill(-1, 9)",
    group="import os; os.killpg(0, 9)",
    group_zero="import os; os.kill(0, 9)",
    siblings="import os\nfor p in range(2, 70000):\n"
    "  if p != os.getpid(): os.kill(p, 9)",
  ),
  *cases(
    "processes",
    "blocked error",
    pool="from concurrent.futures import ProcessPoolExecutor as P\n"
    "P(2).submit(print, 1).result()",
    thread="import threading; threading.Thread(target=print).start()",
    thread_pool="from concurrent.futures import ThreadPoolExecutor as T\n"
    "T(2).submit(print, 1).result()",
    raw_thread="import _thread; _thread.start_new_thread(print, ())",
    pidfd="import os, signal\n"
    "signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)",
    timer_thread="import threading; threading.Timer(0, print).start()",
  ),
  *cases(
    "processes",
    "error",
    wait="import os; os.wait()",
  ),
  *cases(
    "processes",
    "ok blocked",
    browser="import webbrowser; webbrowser.open('http://localhost')",
  ),
]

FILES = [
  *cases(
    "files",
    "blocked",
    write="open('hostile_file', 'w').write('x')",
    append="open('/hostile_file', 'a')",
    exclusive="open('/hostile_file', 'x')",
    update="import os; open(os.__file__, 'r+')",
    passwords="print(open('/etc/passwd').read())",
    shadow="print(open('/etc/shadow').read())",
    home="import os; print(open(os.path.expanduser('~/.bashrc')).read())",
    environment="print(open('/proc/self/environ', 'rb').read())",
    parents="import os; open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    init="open('/proc/1/environ', 'rb').read()",
    maps="print(open('/proc/self/maps').read())",
    memory="open('/proc/self/mem', 'rb+')",
    devices="open('/dev/mem', 'rb').read(9)",
    shared="open('/dev/shm/hostile_file', 'wb').write(b'x')",
    low="import os; os.open('/hostile_file', os.O_CREAT | os.O_RDWR)",
    mkdir="import os; os.mkdir('/hostile_folder')",
    remove="import os; os.remove('/hostile_nothing')",
    rename="import os; os.rename('/hostile_a', '/hostile_b')",
    link="import os; os.symlink('/etc', '/hostile_link')",
    chmod="import os; os.chmod('/tmp', 0)",
    tree="import os, shutil; shutil.rmtree(os.path.dirname(os.__file__))",
    truncate="import os; os.truncate('/hostile_file', 0)",
    touch="import pathlib; pathlib.Path('/hostile_file').touch()",
    text="import pathlib; print(pathlib.Path('/etc/hostname').read_text())",
    database="import sqlite3; sqlite3.connect('/hostile.db')",
    log="import logging; logging.basicConfig(filename='/hostile.log')",
    dots="import os; open(os.path.dirname(os.__file__) + '/' + '../' * 9 "
    "+ 'etc/passwd')",
    numpy="import numpy as np; np.save('/hostile.npy', np.ones(3))",
    numpy_read="import numpy as np; np.fromfile('/etc/passwd', 'u1')",
  ),
  *cases(
    "files",
    "blocked error",
    shelf="import shelve; shelve.open('/hostile_shelf')",
    temporary="import tempfile; tempfile.mkdtemp()",
  ),
]

NETWORK = [
  *cases(
    "network",
    "blocked",
    connect="import socket; socket.create_connection(('127.0.0.1', 9))",
    connect6="import socket\n"
    "socket.socket(socket.AF_INET6).connect(('::1', 9))",
    bind="import socket; socket.socket().bind(('127.0.0.1', 0))",
    datagram="import socket\n"
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    unix="import socket\ns = socket.socket(socket.AF_UNIX)\n"
    "s.connect('/run/docker.sock')",
    abstract="import socket\ns = socket.socket(socket.AF_UNIX)\n"
    "s.connect('\\0hostile')",
    resolve="import socket; socket.getaddrinfo('localhost', 80)",
    lookup="import socket; socket.gethostbyname('localhost')",
    url="import urllib.request as u; u.urlopen('http://127.0.0.1:9')",
    local_url="import urllib.request as u; u.urlopen('file:///etc/passwd')",
    http="import http.client as h; h.HTTPConnection('127.0.0.1', 9).request("
    "'GET', '/')",
    mail="import smtplib; smtplib.SMTP('127.0.0.1', 9)",
    ftp="import ftplib; ftplib.FTP('127.0.0.1', timeout=9)",
    server="import http.server as h\n"
    "h.HTTPServer(('127.0.0.1', 0), h.BaseHTTPRequestHandler)",
  ),
]

REACH = [
  *cases(
    "reach",
    "blocked",
    library="import ctypes; ctypes.CDLL(None)",
    libc="import ctypes; ctypes.CDLL('libc.so.6').getpid()",
    address="import ctypes; ctypes.string_at(0)",
    python="import ctypes; ctypes.pythonapi.Py_GetVersion",
    limits="import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))",
    cpu="import resource as r; r.setrlimit(r.RLIMIT_CPU, (99, 99))",
    others="import os, resource as r\n"
    "r.prlimit(os.getppid(), r.RLIMIT_CPU, (1, 1))",
    pickled="import pickle\nclass A:\n  def __reduce__(self):\n"
    "    return __import__('os').system, ('true',)\n"
    "pickle.loads(pickle.dumps(A()))",
    old_pickle="import pickle\n"
    "pickle.loads(b\"cos\\nsystem\\n(S'true'\\ntR.\")",
    numpy_pickle="import io, numpy as np\n"
    "data = io.BytesIO(b\"cos\\nsystem\\n(S'true'\\ntR.\")\n"
    "np.load(data, allow_pickle=True)",
    compiled='f = \'__import__("os").system("true")\'\n'
    "eval(compile(f, 'x', 'eval'))",
    sympify="import sympy; sympy.sympify(\"__import__('os').system('true')\")",
    finder="import sys\nclass F:\n  def find_spec(*a): raise OSError(a)\n"
    "sys.meta_path.insert(0, F())\nopen('/etc/passwd')",
    reload="import importlib, os; importlib.reload(os); os.system('true')",
    wait_close="import os; os.popen('cat /etc/passwd')",
  ),
  *cases(
    "reach",
    "ok",
    hook_added=(
      "import sys; sys.addaudithook(lambda *a: None); print(1)",
      "1\n",
    ),
    path=("import sys; sys.path.insert(0, '/tmp'); print(2)", "2\n"),
    environment=(
      "import os; print('HOME' in os.environ, 'PATH' in os.environ)",
      "False False\n",
    ),
    arguments=("import sys; print(sys.argv)", "['']\n"),
    package=(
      "import sys\n"
      "print({'zygote', 'isolation', 'wire', 'children'} & {*sys.modules})",
      "set()\n",
    ),
    threads=("import threading; print(threading.active_count())", "1\n"),
    descriptors=(
      "import os\nn = 0\nfor d in range(3, 60):\n  try: os.fstat(d); n += 1\n"
      "  except OSError: pass\nprint(n)",
      "0\n",
    ),
  ),
  *cases(
    "reach",
    "error",
    missing="import no_such_module_here",
    jax="import jax.numpy; jax.no_such",
  ),
  *cases(
    "reach",
    "error blocked",
    project="import rstar_jax.types",
  ),
  *cases(
    "reach",
    "ok error crashed timeout",
    channel="import os\nfor d in range(3, 256):\n"
    "  try: os.write(d, b'\\0\\0\\0\\2{}')\n  except OSError: pass\nprint(1)",
    channel_read="import os\nos.set_blocking(60, False)\nos.read(60, 99)",
    descriptors_gone="import os; os.closerange(3, 256); print(1)",
    adopt="import socket; s = socket.socket(fileno=60); s.close()",
  ),
]

CASES = (
  *PROCESSES,
  *FILES,
  *NETWORK,
  *REACH,
)
