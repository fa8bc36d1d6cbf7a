"""What was kept is kept, whoever dies."""

import concurrent.futures
import pathlib
import threading
from unittest import mock

from absl import logging
from absl.testing import absltest

from rstar_jax.storage import append_only, store
from tests import fake_gcs


class MirrorTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.bucket, _ = self.enter_context(fake_gcs.serve("b"))
    self.folder = store.path("gs://b/run")

  def test_on_the_disk_nothing_is_copied(self):
    folder = pathlib.Path(self.create_tempdir().full_path) / "deep"
    mirror = append_only.Mirror(folder)
    self.assertEqual(mirror.local, folder)
    self.assertEqual(mirror.resume("x.jsonl"), folder / "x.jsonl")
    self.assertTrue(folder.exists())
    mirror.close()
    self.assertEmpty(self.bucket.calls)

  def test_goes_on_and_is_copied_in_the_end(self):
    for number in range(3):
      mirror = append_only.Mirror(self.folder, seconds=1e6)
      with mirror.resume("x.jsonl").open("a") as stream:
        stream.write(f"{number}\n")
      (mirror.local / "deep").mkdir()
      (mirror.local / "deep" / f"{number}").write_text("y")
      mirror.close()
      mirror.close()
    self.assertEqual(store.read(self.folder / "x.jsonl"), b"0\n1\n2\n")
    self.assertEqual(store.children(self.folder / "deep"), ["0", "1", "2"])

  def test_is_copied_meanwhile_and_only_what_has_grown(self):
    written = threading.Event()

    def hook(operation, name):
      if (operation, name) == ("write done", "run/x"):
        written.set()

    self.bucket.hook = hook
    mirror = append_only.Mirror(self.folder, seconds=0.01)
    for text in "ab":
      written.clear()
      with mirror.resume("x").open("a") as stream:
        stream.write(text)
      self.assertTrue(written.wait(60))
    mirror.close()
    self.assertEqual(store.read(self.folder / "x"), b"ab")
    self.assertEqual(self.bucket.calls.count(("write", "run/x")), 2)

  def test_a_bucket_that_fails_ends_nothing(self):
    self.bucket.hook = fake_gcs.Crash(1)
    mirror = append_only.Mirror(self.folder, seconds=1e6)
    (mirror.local / "x").write_text("1")
    with self.assertLogs(level="WARNING") as logs:
      mirror.close()
    self.assertIn("gs://b/run/x was not copied", "".join(logs.output))


class BlocksTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.bucket, _ = self.enter_context(fake_gcs.serve("b"))
    self.path = store.path("gs://b/run/log")
    self.enter_context(mock.patch.object(append_only, "_BLOCK", 20))

  def open(self) -> append_only.Blocks:
    return append_only.Blocks(self.path, seconds=0)

  def text(self) -> str:
    """Returns what another process would find."""
    blocks = self.open()
    return blocks.file.read_text()

  def append(self, blocks: append_only.Blocks, text: str) -> int:
    with blocks.file.open("a") as stream:
      stream.write(text)
    return blocks.file.stat().st_size

  def test_blocks_are_filled_one_after_the_other(self):
    blocks, text = self.open(), ""
    for number in range(13):
      text += f"line {number}\n"
      blocks.upload(self.append(blocks, f"line {number}\n"))
      if number % 5 == 4:  # Another process goes on.
        blocks = self.open()
      self.assertEqual(self.text(), text)
    names = append_only.block_names(self.path)
    self.assertEqual(names, [f"log.{i:05}" for i in range(len(names))])
    self.assertGreater(len(names), 3)

  def test_what_goes_while_it_is_read_is_nothing(self):
    blocks = self.open()
    for text in ("a" * 30, "b" * 30, "c"):
      blocks.upload(self.append(blocks, f"{text}\n"))

    def remove(operation, name):
      if operation == "read":
        self.bucket.objects.pop(("b", "run/log.00001"), None)
        self.bucket.objects.pop(("b", "run/log.00002"), None)

    self.bucket.hook = remove
    blocks = self.open()
    self.assertEqual(blocks.file.read_text(), "a" * 30 + "\n")
    self.bucket.hook = lambda *_: None
    blocks.upload(self.append(blocks, "d\n"))
    self.assertEqual(self.text(), "a" * 30 + "\nd\n")

  def test_other_names_are_not_blocks(self):
    store.write(self.path.with_name("log-1.00000"), b"x\n")
    self.assertEmpty(append_only.block_names(self.path))

  def test_what_is_kept_is_not_written_again(self):
    blocks = self.open()
    blocks.upload(self.append(blocks, "one\n"))
    self.bucket.calls.clear()
    blocks.upload(3)
    self.assertEmpty(self.bucket.calls)

  def test_half_a_line_waits(self):
    blocks = self.open()
    size = self.append(blocks, "one\n")
    self.append(blocks, "tw")
    blocks.upload(size)
    self.assertEqual(self.text(), "one\n")
    blocks.upload(self.append(blocks, "o\n"))
    self.assertEqual(self.text(), "one\ntwo\n")

  def test_threads_share_a_write(self):
    blocks, count = self.open(), 50
    ends = [self.append(blocks, f"{n}\n") for n in range(count)]
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
      list(pool.map(blocks.upload, ends))
    self.assertEqual(self.text(), "".join(f"{n}\n" for n in range(count)))
    writes = [name for kind, name in self.bucket.calls if kind == "write"]
    self.assertLen(writes, 1)

  def test_two_writes_are_so_far_apart(self):
    blocks = append_only.Blocks(self.path, seconds=5.0)
    with mock.patch.object(append_only.time, "sleep") as sleep:
      for text in ("a\n", "b\n"):
        blocks.upload(self.append(blocks, text))
    first, second = (call.args[0] for call in sleep.call_args_list)
    self.assertEqual(first, 0)
    self.assertBetween(second, 1.0, 5.0)

  def test_nothing_that_was_kept_is_lost_wherever_a_writer_dies(self):
    level = logging.get_verbosity()
    self.addCleanup(logging.set_verbosity, level)
    logging.set_verbosity(logging.FATAL)
    lines = [f"line {n}\n" for n in range(7)]
    point, crash = 0, None
    while crash is None or crash.over:
      point += 1
      self.bucket.objects.clear()
      crash, kept = fake_gcs.Crash(point), ""
      blocks = self.open()
      self.bucket.hook = crash
      try:
        for line in lines:
          blocks.upload(self.append(blocks, line))
          kept += line
      except OSError:
        self.assertTrue(crash.over)
      self.bucket.hook = lambda *_: None
      found = self.text()
      self.assertStartsWith(found, kept)
      self.assertStartsWith("".join(lines), found)
    self.assertEqual(point, 2 * len(lines) + 1)


if __name__ == "__main__":
  absltest.main()
