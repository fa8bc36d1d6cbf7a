"""Programs in forks: what they are told, what they leave, how they end."""

import os
import pathlib
import signal
import sys
import time

import jax
from absl.testing import absltest

from tests import forked


def setUpModule():
  forked.prepare(6)


def say(word: str) -> None:
  print(word, os.environ["SAID"], jax.config.jax_numpy_rank_promotion)
  print(len(jax.devices()), os.getpid() == os.getsid(0), file=sys.stderr)
  sys.exit(7)


def compile_() -> None:
  hits = []
  jax.monitoring.register_event_listener(
    lambda name, **_: hits.append(name.endswith("cache_hits"))
  )
  jax.jit(lambda x: 3 * x)(2.0)
  print(any(hits))


def sleep() -> None:
  time.sleep(600)


class ForkedTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.log = pathlib.Path(self.create_tempfile(content="before\n").full_path)

  def start(self, function, *arguments, **environment):
    return forked.Program(function, arguments, self.log, environment)

  def test_is_a_program(self):
    program = self.start(
      say,
      "first",
      SAID="loudly",
      JAX_NUMPY_RANK_PROMOTION="raise",
      JAX_PLATFORMS="cpu",
      XLA_FLAGS="--xla_force_host_platform_device_count=3",
    )
    self.assertEqual(program.wait(), 7)
    self.assertCountEqual(
      self.log.read_text().splitlines(),
      ["before", "first loudly raise", "3 True"],
    )

  def test_a_second_one_compiles_nothing_again(self):
    for _ in range(2):
      self.assertEqual(self.start(compile_).wait(), 0)
    self.assertEqual(self.log.read_text(), "before\nFalse\nTrue\n")

  def test_a_command(self):
    self.assertEqual(self.start(forked.command, "no_such_command").wait(), 1)
    self.assertIn("no_such_command", self.log.read_text())

  def test_ends_by_a_signal(self):
    for number in (signal.SIGTERM, signal.SIGKILL):
      program = self.start(sleep)
      self.assertIsNone(program.wait(0.01))
      self.assertIsNone(program.poll())
      program.send_signal(number)
      self.assertEqual(program.wait(), -number)


if __name__ == "__main__":
  absltest.main()
