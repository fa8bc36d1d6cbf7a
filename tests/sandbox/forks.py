"""Runs irrevocable actions in forks, for tests of isolation layers."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from rstar_jax.sandbox import children
from rstar_jax.sandbox.isolation import confinement

USER = 54321  # An ordinary user, if tests run as root.
_PACKAGE = pathlib.Path(confinement.__file__).parents[2]


def forked(action) -> str:
  """Runs an action in a fork; returns its result or exception as text."""
  reader, writer = os.pipe()
  pid = os.fork()
  if pid == 0:
    try:
      text = str(action())
    except BaseException as error:
      text = f"{type(error).__name__}: {error}"
    finally:
      os.write(writer, text.encode())
      os._exit(0)
  os.close(writer)
  with open(reader, encoding="utf-8") as file:
    text = file.read()
  os.waitpid(pid, 0)
  return text


def as_worker(call):
  """Returns what a call of a worker's function returns; its children live."""
  try:
    return call()
  except children.Born as child:
    child.live()


def as_ordinary_user(code: str) -> str:
  """Returns the output of a program that an ordinary user runs.

  Args:
    code: may import what a worker imports.

  Raises:
    SkipTest: this is root, and no interpreter is another user's to run.
  """
  user = {}
  if os.geteuid() == 0:
    user = {"user": USER, "group": USER, "extra_groups": []}
  for python in (sys.executable, "/usr/bin/python3", "/usr/bin/python3.11"):
    check = "import json, sys; assert sys.version_info >= (3, 11)"
    try:
      command = [python, "-c", check]
      subprocess.run(command, check=True, capture_output=True, cwd="/", **user)
      break
    except (OSError, subprocess.CalledProcessError):
      continue
  else:
    raise unittest.SkipTest("an ordinary user can run no interpreter here")
  with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    copy = shutil.copytree(_PACKAGE / "sandbox", f"{folder}/rstar_jax/sandbox")
    for path in (copy, *pathlib.Path(folder).rglob("*")):
      os.chmod(path, 0o755)
    return subprocess.run(
      [python, "-P", "-s", "-B", "-c", code],
      env={"PYTHONPATH": folder, "OPENBLAS_NUM_THREADS": "1"},
      stdout=subprocess.PIPE,
      check=True,
      cwd="/",
      text=True,
      **user,
    ).stdout
