import importlib.util
import io
import json
import pathlib
import struct
import sys
import time
from unittest import mock

from absl.testing import absltest
from tensorboardX.proto import event_pb2

from rstar_jax.storage import metrics
from tests import full_disk


def events(folder: pathlib.Path):
  """Yields the events in a folder, read as TensorBoard reads them."""
  for path in sorted(folder.iterdir()):
    data, at = path.read_bytes(), 0
    while at < len(data):
      # The length and its checksum, the event, and its checksum.
      (size,) = struct.unpack_from("<Q", data, at)
      yield event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
      at += 12 + size + 4


class MetricsTest(absltest.TestCase):
  def test_json_lines_are_appended(self):
    folder = pathlib.Path(self.create_tempdir().full_path) / "run"
    with metrics.MetricsWriter(folder) as writer:
      writer.write(3, {"loss": 0.5}, prefix="round_1/sft")
    with metrics.MetricsWriter(folder) as writer:
      writer.write(5, {"accuracy": 1})
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
      self.assertLess(abs(time.time() - row.pop("time")), 600)
      self.assertBetween(row.pop("elapsed"), 0, 600)
    self.assertEqual(
      rows,
      [{"step": 3, "round_1/sft/loss": 0.5}, {"step": 5, "accuracy": 1.0}],
    )

  def test_a_full_disk_is_said_with_the_file(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    writer = metrics.MetricsWriter(folder, names=())
    said = f"^{folder}/metrics.jsonl cannot be written .File too large"
    with full_disk.full(0):
      with self.assertRaisesRegex(OSError, said):
        writer.write(1, {"loss": 0.5})
      with self.assertRaisesRegex(OSError, said):
        writer.close()

  def test_a_line_after_one_that_a_full_disk_cut(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    file = folder / "metrics.jsonl"
    writer = metrics.MetricsWriter(folder, names=())
    writer.write(1, {"loss": 0.5})
    whole = file.read_text()
    with full_disk.full(len(whole) + 9):
      for call in (lambda: writer.write(2, {"loss": 0.4}), writer.close):
        with self.assertRaises(OSError):
          call()
    self.assertLen(file.read_text(), len(whole) + 9)
    # A line that lacks its end alone is kept.
    for before in (file.read_text(), whole.rstrip("\n")):
      file.write_text(before)
      for _ in range(2):
        with metrics.MetricsWriter(folder, names=()) as again:
          again.write(3, {"loss": 0.3})
      self.assertStartsWith(file.read_text(), f"{before}\n")
      lines = file.read_text()[len(before) + 1 :].splitlines()
      self.assertEqual([json.loads(each)["step"] for each in lines], [3, 3])

  def test_tensorboard_events_without_tensorflow(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with metrics.MetricsWriter(folder) as writer:
      writer.write(7, {"loss": 0.5}, prefix="sft")
    found = {
      (event.step, value.tag): value
      for event in events(folder / "tensorboard")
      for value in event.summary.value
    }
    self.assertCountEqual(found, [(7, "sft/loss")])
    self.assertEqual(found[7, "sft/loss"].simple_value, 0.5)
    self.assertNotIn("tensorflow", sys.modules)

  def test_without_tensorboard_there_are_lines_alone(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with (
      mock.patch.object(importlib.util, "find_spec", return_value=None),
      metrics.MetricsWriter(folder) as writer,
    ):
      writer.write(7, {"loss": 0.5}, prefix="sft")
    self.assertEqual(
      [each.name for each in folder.iterdir()], ["metrics.jsonl"]
    )
    row = json.loads((folder / "metrics.jsonl").read_text())
    self.assertEqual((row["step"], row["sft/loss"]), (7, 0.5))

  def test_null_writer(self):
    writer = metrics.NullWriter()
    self.assertIsNone(writer.write(1, {"loss": 2.0}, prefix="x"))
    self.assertIsNone(writer.close())


class _Terminal(io.StringIO):
  def isatty(self):
    return True


class ProgressTest(absltest.TestCase):
  def lines(self, *counts: int, **options) -> list[str]:
    out = io.StringIO()
    with metrics.Progress(file=out, **options) as bar:
      for count in counts:
        bar.update(count, loss=0.25)
    return out.getvalue().splitlines()

  def test_one_line_where_there_is_no_terminal(self):
    (line,) = self.lines(
      *9 * [1], total=11, desc="sft", start=2, unit="update", seconds=1e9
    )
    self.assertRegex(line, r"^sft: 9 updates in 0 s, loss 0\.25$")

  def test_its_pace(self):
    with mock.patch.object(metrics.time, "monotonic") as clock:
      clock.side_effect = [10.0, 11.0, 14.0]
      (line,) = self.lines(6, total=6, desc="search", unit="tree")
    self.assertEqual(line, "search: 6 trees in 4 s, 1.5 a second, loss 0.25")

  def test_a_line_when_it_is_time(self):
    lines = self.lines(2, 1, total=3, desc="ppm", unit="pair", seconds=0.0)
    self.assertLen(lines, 2)
    self.assertRegex(
      lines[0], r"^ppm: 2 of 3 pairs, \S+ a second, \d+ s left, loss 0\.25$"
    )

  def test_the_first_unit_says_nothing_of_the_rest(self):
    lines = self.lines(1, 6, total=100, desc="search", unit="tree", seconds=0.0)
    self.assertRegex(lines[0], r"^search: 1 of 100 trees, time left unknown")
    lines = self.lines(11, 1, total=1000, desc="search", seconds=0.0)
    self.assertRegex(lines[0], r"\d+ s left")

  def test_lines_become_rarer(self):
    with mock.patch.object(metrics.time, "monotonic") as clock:
      clock.return_value = 0.0
      out = io.StringIO()
      bar = metrics.Progress(10_000, "search", file=out, seconds=10.0)
      spoke = []
      for now in range(1, 2000):
        clock.return_value = float(now)
        before = out.getvalue()
        bar.update()
        if out.getvalue() != before:
          spoke.append(now)
    self.assertEqual(spoke, [10, 30, 70, 150, 310, 630, 1230, 1830])

  def test_nothing_to_say(self):
    self.assertEmpty(self.lines(total=0, desc="compiling"))
    self.assertEmpty(self.lines(total=5, start=5, desc="rollout"))

  def test_what_is_given_up_says_so(self):
    out = io.StringIO()
    with self.assertRaises(KeyError):
      with metrics.Progress(5, "sft", unit="update", file=out) as bar:
        bar.update(2)
        raise KeyError
    self.assertEqual(out.getvalue(), "sft: stopped at 2 of 5 updates\n")

  def test_bar_on_a_terminal(self):
    out = _Terminal()
    with metrics.Progress(5, "sft", file=out) as bar:
      bar.update(5, loss=0.125)
    self.assertIn("5/5", out.getvalue())
    self.assertIn("loss 0.125", out.getvalue())


if __name__ == "__main__":
  absltest.main()
