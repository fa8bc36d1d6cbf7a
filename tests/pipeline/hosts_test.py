"""Several processes, with jax's runtime and collectives between them.

Each has two fake devices. They train as one process does, stop together when
one of them is told to, and go on where they were.
"""

import contextlib
import os
import pathlib
import signal
import socket
import threading
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.models.transformer import arrays_of
from rstar_jax.pipeline import hosts
from rstar_jax.storage import checkpoints
from tests import forked
from tests import run as runner
from tests.training import one_of_several, tiny_training

# Of processes that train together.
TOGETHER = {
  "JAX_PLATFORMS": "cpu",
  "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
}


def setUpModule():
  forked.prepare(12)


def free_port() -> int:
  """Returns a free port, for a program to bind later.

  It is below those that Linux may give to another program until then. Two files
  draw different ports, though both are forks of one process.
  """
  random = np.random.default_rng()
  while True:
    with contextlib.suppress(OSError), socket.socket() as server:
      server.bind(("", int(random.integers(10000, 32768))))
      return server.getsockname()[1]


class TrainingTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def train(self, kind: str, mesh, kills: dict | None = None) -> list[int]:
    """Trains on processes of two devices; returns their exit codes.

    Args:
      kind: "sft" or "ppm".
      mesh: of all their devices.
      kills: killed_at and signal of process 1.
    """
    return self.run_all(
      one_of_several.main, mesh, {1: kills or {}}, {"kind": kind}
    )

  def run_all(self, function, mesh, own: dict, config: dict) -> list[int]:
    """Runs processes of two devices; returns their exit codes.

    Args:
      function: of `one_of_several`.
      mesh: of all their devices.
      own: parts of the config of some processes, by number.
      config: parts of that of all.
    """
    count = int(np.prod(mesh)) // 2
    coordinator = f"localhost:{free_port()}"
    environment = TOGETHER | {
      "XLA_FLAGS": "--xla_force_host_platform_device_count=2 "
      + os.environ.get("XLA_FLAGS", ""),
    }
    processes = []
    for index in range(count):
      whole = {
        "coordinator": coordinator,
        "count": count,
        "index": index,
        "mesh": mesh,
        "folder": str(self.folder / "checkpoints"),
        "out": str(self.folder / "out.npz"),
      }
      whole |= config | own.get(index, {})
      log = self.folder / f"{index}.log"
      processes.append(forked.Program(function, [whole], log, environment))
      self.addCleanup(processes[-1].kill)
    return [each.wait(runner.PATIENCE) for each in processes]

  def assert_as_one_process(self, kind: str) -> None:
    model, losses = tiny_training.train(kind, epochs=4)
    found = np.load(self.folder / "out.npz")
    # Of a run that was resumed, those of the later updates.
    count = len(found["losses"])
    np.testing.assert_allclose(found["losses"], losses[-count:], rtol=1e-4)
    for path, array in arrays_of(model).items():
      name = "/".join(map(str, path))
      np.testing.assert_allclose(found[name], array, atol=4e-5, err_msg=name)
    grown = tiny_training.with_more_tokens(model).embedding.get_value()
    self.assertEqual(grown.shape[0], 272)
    np.testing.assert_allclose(found["grown"], grown, atol=4e-5)

  def logs(self) -> str:
    return "\n".join(
      f"{path.name}: {path.read_text()[-2000:]}"
      for path in sorted(self.folder.glob("*.log"))
    )

  def test_four_processes(self):
    codes = self.train("ppm", (2, 2, 2))
    self.assertEqual(codes, [0] * 4, self.logs())
    self.assert_as_one_process("ppm")

  def test_two_processes_are_stopped_and_go_on(self):
    # Told after its second batch, before the updates that are on their way.
    kills = {"killed_at": 1, "signal": signal.SIGTERM}
    codes = self.train("sft", (1, 2, 2), kills)
    self.assertEqual(codes, [0] * 2, self.logs())
    saved = [path.name for path in (self.folder / "checkpoints").iterdir()]
    self.assertSameElements(saved, ["3", "4"])
    self.assertFalse((self.folder / "out.npz").exists())
    codes = self.train("sft", (1, 2, 2))
    self.assertEqual(codes, [0] * 2, self.logs())
    self.assertLen(np.load(self.folder / "out.npz")["losses"], 4)
    self.assert_as_one_process("sft")

  def test_two_processes_restore_one_checkpoint(self):
    """That which the first one chooses, or none."""
    with checkpoints.Checkpoints(self.folder / "checkpoints") as saver:
      for step in (3, 7):
        saver.save(
          step, {"w": step * np.arange(24.0, dtype=np.float32).reshape(8, 3)}
        )

    def restore(index: int) -> list[int]:
      return self.run_all(
        one_of_several.restored,
        *((1, 2, 2), {index: {"unread": "7"}}),
        {"out": str(self.folder / "restored")},
      )

    codes = restore(1)
    self.assertNotIn(0, codes, self.logs())
    self.assertRegex(self.logs(), r"7 cannot be read \(JSONDecodeError: ")
    self.assertRegex(self.logs(), r"7 cannot be read \(by process 1, ")
    codes = restore(0)
    self.assertEqual(codes, [0] * 2, self.logs())
    rows = []
    for index in range(2):
      found = np.load(self.folder / f"restored{index}.npz")
      self.assertEqual(found["step"], 3)
      rows.extend(found["rows"])
    self.assertCountEqual(
      np.concatenate(rows).tolist(),
      (3 * np.arange(24.0)).reshape(8, 3).tolist(),
    )


class HostTest(parameterized.TestCase):
  def test_each_shard_is_one_host_s(self):
    for count in (1, 2, 7):
      shares = [hosts.Host(n, count).share(range(23)) for n in range(count)]
      self.assertCountEqual(sum(shares, []), range(23))
      for index, share in enumerate(shares):
        self.assertEqual({number % count for number in share}, {index})

  def test_who_leads(self):
    self.assertTrue(hosts.Host().leads)
    self.assertFalse(hosts.Host(1, 2).leads)
    self.assertTrue(hosts.Host().agree(True))

  @parameterized.parameters(("localhost:1", None, None), (None, 3, 1))
  def test_some_of_three(self, *arguments):
    with self.assertRaisesRegex(ValueError, "go together: give all three"):
      hosts.join(*arguments)

  @parameterized.parameters(
    ({"SLURM_PROCID": "5", "SLURM_NTASKS": "8"}, 5, 8),
    ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, 0, 2),
    ({"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b,c"}, 1, 3),
    # The second of two slices with three workers each.
    (
      {
        "TPU_WORKER_ID": "1",
        "TPU_WORKER_HOSTNAMES": "a,b,c",
        "MEGASCALE_NUM_SLICES": "2",
        "MEGASCALE_SLICE_ID": "1",
      },
      4,
      6,
    ),
  )
  def test_placed_by_the_environment(self, environment, index, count):
    found = hosts.place(environment=environment)
    self.assertEqual(found, hosts.Host(index, count))
    self.assertEqual(hosts.place(9, 7, environment), hosts.Host(7, 9))

  def test_placed_by_a_tpu_s_metadata(self):
    said = {
      "agent-worker-number": "3",
      "worker-network-endpoints": "a:1:10.0.0.1,b:1:10.0.0.2,c,d",
      "tpu-env": "ZONE: 'x'\nMEGASCALE_NUM_SLICES: '2'\n"
      "MEGASCALE_SLICE_ID: '1'\n",
    }
    with mock.patch.object(hosts, "_metadata", said.__getitem__):
      self.assertEqual(hosts.place(environment={}), hosts.Host(7, 8))

  @parameterized.parameters(
    ({"SLURM_PROCID": "five", "SLURM_NTASKS": "8"}, "SLURM_PROCID='five'"),
    ({"TPU_WORKER_ID": "", "TPU_WORKER_HOSTNAMES": "a,b"}, "TPU_WORKER_ID=''"),
    (
      {
        "TPU_WORKER_ID": "1",
        "TPU_WORKER_HOSTNAMES": "a,b",
        "MEGASCALE_NUM_SLICES": "2",
        "MEGASCALE_SLICE_ID": "b",
      },
      "MEGASCALE_SLICE_ID='b'",
    ),
  )
  def test_placed_by_what_is_no_number(self, environment, said):
    with self.assertRaisesRegex(
      ValueError, f"^{said} is no number: give --processes and --process$"
    ):
      hosts.place(environment=environment)
    self.assertEqual(hosts.place(9, 7, environment), hosts.Host(7, 9))

  def test_placed_by_nothing(self):
    with (
      mock.patch.object(hosts, "_metadata", side_effect=OSError),
      self.assertRaisesRegex(ValueError, "^give --processes=COUNT and"),
    ):
      hosts.place(environment={})

  @parameterized.parameters((4, None), (None, 3), (4, 4), (4, -1))
  def test_no_place(self, count, index):
    with self.assertRaisesRegex(ValueError, "--process"):
      hosts.place(count, index, {})

  def test_waits_until_it_is_there(self):
    event = threading.Event()
    asked = []

    def done() -> bool:
      asked.append(1)
      if len(asked) == 3:
        event.set()
      return event.is_set()

    with mock.patch.object(hosts, "_POLL_SECONDS", 0.001):
      hosts.wait_until(done, "a file")
    self.assertLen(asked, 3)


if __name__ == "__main__":
  absltest.main()
