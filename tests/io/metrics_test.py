import io
import json
import pathlib
import struct
import sys

from absl.testing import absltest

from rstar_jax.io import metrics


class MetricsTest(absltest.TestCase):
  def test_json_lines_are_appended(self):
    folder = pathlib.Path(self.create_tempdir().full_path) / "run"
    with metrics.MetricsWriter(folder) as writer:
      writer.write(3, {"loss": 0.5}, prefix="round_1/sft")
    with metrics.MetricsWriter(folder) as writer:
      writer.write(5, {"accuracy": 1})
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    self.assertEqual(
      [json.loads(line) for line in lines],
      [{"step": 3, "round_1/sft/loss": 0.5}, {"step": 5, "accuracy": 1.0}],
    )

  def test_tensorboard_events_without_tensorflow(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    with metrics.MetricsWriter(folder) as writer:
      writer.write(7, {"loss": 0.5}, prefix="sft")
    data = b"".join(
      path.read_bytes() for path in (folder / "tensorboard").iterdir()
    )
    self.assertIn(b"sft/loss", data)
    self.assertIn(struct.pack("<f", 0.5), data)
    self.assertNotIn("tensorflow", sys.modules)

  def test_null_writer(self):
    writer = metrics.NullWriter()
    self.assertIsNone(writer.write(1, {"loss": 2.0}, prefix="x"))
    self.assertIsNone(writer.close())


class _Terminal(io.StringIO):
  def isatty(self):
    return True


class ProgressTest(absltest.TestCase):
  def test_lines_where_there_is_no_terminal(self):
    out = io.StringIO()
    with metrics.progress(11, "sft", start=2, file=out, seconds=1e9) as bar:
      for _ in range(9):
        bar.update(1, loss=0.25)
    lines = out.getvalue().splitlines()
    self.assertLen(lines, 2)  # The first and the last word, and no more.
    self.assertEqual(lines[0], "sft starts: 2/11")
    self.assertStartsWith(lines[1], "sft ends: 11/11, ")
    self.assertEndsWith(lines[1], "loss=0.25")

  def test_a_line_when_it_is_time(self):
    out = io.StringIO()
    with metrics.progress(3, "ppm", file=out, seconds=0.0) as bar:
      bar.update(2)
    self.assertStartsWith(out.getvalue().splitlines()[1], "ppm: 2/3, ")

  def test_bar_on_a_terminal(self):
    out = _Terminal()
    with metrics.progress(5, "sft", file=out) as bar:
      bar.update(5, loss=0.125)
    self.assertIn("5/5", out.getvalue())
    self.assertIn("loss=0.125", out.getvalue())


if __name__ == "__main__":
  absltest.main()
