"""worker.sh and pod.sh: processes, signals and exit statuses, for real."""

import fcntl
import os
import pathlib
import signal
import subprocess
import time

from absl.testing import absltest, parameterized

from tests.launch import cloud as cloud_lib


class WorkerTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.cloud = cloud_lib.Cloud()
    self.addCleanup(self.cloud.close)
    self.home = self.cloud.folder / "home"
    (self.home / "rstar_jax").mkdir(parents=True)
    python = self.home / "rstar_venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(self.cloud.folder / "worker_bin" / "python3")

  def worker(self, *words, status=0, **variables):
    done = subprocess.run(
      ["bash", cloud_lib.LAUNCH / "worker.sh", *words],
      env=self.cloud.environment(HOME=str(self.home), WORKER="0", **variables)
      | {"PATH": f"{self.cloud.folder / 'worker_bin'}:/usr/bin:/bin"},
      capture_output=True,
      text=True,
      timeout=120,
    )
    self.assertEqual(done.returncode, status, done.stderr)
    return done.stdout.strip()

  def await_state(self, state, *words):
    for _ in range(1000):
      if (said := self.worker("state", *words)) == f"w-0: {state}":
        return
    self.fail(said)

  def pid(self):
    return int((self.home / "rstar_run" / "pid").read_text())

  def test_states_of_a_run(self):
    self.cloud.runs("long", "7", "well")
    self.assertEqual(self.worker("state"), "w-0: idle")
    self.assertEqual(self.worker("run", "--a=b c"), "w-0: started")
    self.cloud.await_said("main")
    self.assertEqual(self.worker("run", "--a=b c"), "w-0: is running already")
    self.assertEqual(self.worker("state", "--b"), "w-0: busy")
    self.assertEqual(self.worker("state"), "w-0: running")
    self.assertEqual(self.worker("stop"), "w-0: has ended")
    self.await_state("stopped", "--a=b c")
    self.worker("run", "--a=b c")
    self.await_state("failed 7", "--a=b c")
    self.worker("run", "--a=b c")
    self.await_state("done", "--a=b c")
    self.await_state("idle", "--a=b", "c")  # That is another command.
    with (self.home / "rstar_run" / "lock").open() as lock:
      # As a second look at the same time does: that of `keep`, say.
      fcntl.flock(lock, fcntl.LOCK_SH)
      self.assertEqual(self.worker("state", "--a=b c"), "w-0: done")
      self.assertEqual(self.worker("stop"), "w-0: nothing is running")
    log = (self.home / "rstar_run" / "log").read_text()
    self.assertEqual(log.count("a line of the run"), 3)

  def test_python_has_its_signals_itself(self):
    self.cloud.runs("long")
    self.worker("run")
    self.cloud.await_said("main")
    command = pathlib.Path(f"/proc/{self.pid()}/cmdline").read_bytes()
    self.assertIn(b"rstar_jax.main", command.split(b"\0"))
    os.kill(self.pid(), signal.SIGHUP)  # As a terminal that is closed sends.
    os.kill(self.pid(), signal.SIGTERM)
    self.cloud.await_said("saved after 1")

  def test_a_machine_that_is_shut_down(self):
    self.cloud.runs("long")
    self.worker("run")
    self.cloud.await_said("main")
    # All processes get it, the run and the shell that waits for it.
    status = pathlib.Path(f"/proc/{self.pid()}/stat").read_text()
    os.kill(int(status.rpartition(")")[2].split()[1]), signal.SIGTERM)
    time.sleep(0.1)
    self.assertEqual(self.worker("state"), "w-0: running")
    os.kill(self.pid(), signal.SIGTERM)
    self.cloud.await_said("saved after 1")
    # It ended with 0, and was not done.
    self.await_state("interrupted")

  def test_a_run_that_does_not_end_when_told(self):
    self.cloud.runs("long")
    self.worker("run")
    self.cloud.await_said("main")
    os.kill(self.pid(), signal.SIGSTOP)
    self.worker("stop", status=1, STOP_SECONDS="0.1")
    os.kill(self.pid(), signal.SIGCONT)
    self.await_state("stopped")

  def test_called_wrongly(self):
    self.assertEqual(self.worker("explode", status=2), "")
    self.assertEqual(self.worker(status=2), "")


class PodTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.cloud = cloud_lib.Cloud()
    self.addCleanup(self.cloud.close)

  def start(self, *words, kill="", **options):
    """Starts it; `kill` is the body of a function that replaces the builtin."""
    function = {"BASH_FUNC_kill%%": f"() {{ {kill}\n}}"} if kill else {}
    return subprocess.Popen(
      ["bash", cloud_lib.LAUNCH / "pod.sh", *(words or ("tpu,hub", "--a=b c"))],
      env=self.cloud.environment(WORKER="0")
      | {"PATH": f"{self.cloud.folder / 'worker_bin'}:/usr/bin:/bin"}
      | function,
      stdout=subprocess.DEVNULL,
      **options,
    )

  @parameterized.parameters(("well", 0), ("7", 7))
  def test_ends_as_the_run_does(self, how, status):
    self.cloud.runs(how)
    self.assertEqual(self.start().wait(120), status)
    self.assertEqual(
      self.cloud.said(),
      [
        "pip install --quiet -e .[tpu,hub]",
        "main -u -m rstar_jax.main --distributed --a=b c",
      ],
    )

  @parameterized.parameters("rollout", "--round=1", "tpu,hubb", "tpu hub x")
  def test_a_first_word_that_is_no_extra(self, word):
    wrong = word.replace(",", " ").split()[-1]
    pod = self.start(word, "--a=b", stderr=subprocess.PIPE, text=True)
    _, said = pod.communicate(timeout=120)
    self.assertEqual((pod.returncode, self.cloud.said()), (2, []))
    self.assertStartsWith(said, f"pod.sh: {wrong} is no extra of setup.py")
    self.assertEqual(said.count("\n"), 1)

  def test_sigterm_after_the_run_has_ended(self):
    # The script looks whether the run is there after it has ended.
    late = (
      'if [[ $1 == -0 ]]; then builtin kill -TERM $$; fi; builtin kill "$@"'
    )
    pod = self.start(kill=late)
    self.assertEqual(pod.wait(120), 143)

  def test_sigterm_reaches_the_run_once_and_is_not_taken_for_done(self):
    self.cloud.runs("long")
    pod = self.start()
    self.cloud.await_said("main")
    pod.send_signal(signal.SIGTERM)
    self.cloud.await_said("SIGTERM")
    pod.send_signal(signal.SIGTERM)
    self.assertEqual(pod.wait(120), 143)
    self.assertEqual(self.cloud.said()[-1], "saved after 1")


if __name__ == "__main__":
  absltest.main()
