"""Paths on disk and in a bucket, with a server that stands in for Google's."""

import contextlib
import os
import pathlib
import shutil
import threading
import time
from unittest import mock

import fsspec
from absl.testing import absltest, parameterized
from etils import epath

from rstar_jax.storage import store
from tests import fake_gcs, full_disk


class StoreTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.bucket, _ = self.enter_context(fake_gcs.serve("b"))
    self.disk = pathlib.Path(self.create_tempdir().full_path)

  def folder(self, where: str) -> store.Path:
    """Returns a folder that is not there yet."""
    return store.path("gs://b/some/run" if where == "gs" else self.disk / "run")


class PathTest(StoreTest):
  def test_of_the_disk_it_is_one_of_the_standard_library(self):
    for where in ("runs/x", pathlib.Path("runs/x"), epath.Path("runs/x")):
      path = store.path(where)
      self.assertIs(type(path), type(pathlib.Path()))
      self.assertEqual(str(path), "runs/x")
      self.assertFalse(store.is_remote(path))

  def test_of_a_bucket_it_keeps_both_slashes(self):
    path = store.path("gs://b/run/") / "round_1"
    self.assertEqual(str(path), "gs://b/run/round_1")
    self.assertTrue(store.is_remote(path))

  def test_the_name_of_the_folder_meant(self):
    here = self.disk / "a" / "b"
    here.mkdir(parents=True)
    with contextlib.chdir(here):
      for where, name in (
        *((".", "b"), ("..", "a"), ("c/..", "b"), ("c/", "c")),
        ("gs://b/some/run", "run"),
      ):
        self.assertEqual(store.name_of(store.path(where)), name, where)

  @parameterized.parameters(
    *("s3://b/run", "gs://", "gs:///", "http://x/y", "gs:/b/run"),
    pathlib.Path("gs://b/run"),
  )
  def test_other_kinds_are_refused(self, where):
    with self.assertRaisesRegex(ValueError, f"{where} is neither"):
      store.path(where)

  def test_says_what_to_install(self):
    with mock.patch.object(
      fsspec, "get_filesystem_class", side_effect=ImportError
    ):
      with self.assertRaisesRegex(ValueError, r"'rstar_jax\[gcs\]'"):
        store.path("gs://b/run")
      store.path("run")

  def test_a_bucket_that_is_not_there_is_said(self):
    store.check(store.path("gs://b/run"))
    store.check(self.disk / "none")
    with self.assertRaisesRegex(ValueError, "^gs://other cannot be used"):
      store.check(store.path("gs://other/run"))


@parameterized.parameters("disk", "gs")
class FilesTest(StoreTest):
  def test_written_read_listed_and_removed(self, where):
    folder = self.folder(where)
    self.assertIsNone(store.read(folder / "a.txt"))
    self.assertEmpty(store.files(folder))
    self.assertEmpty(store.children(folder))
    # More than a page of the listing.
    names = [f"deep/{i:02}.txt" for i in range(11)] + ["a.txt", "b.txt"]
    for name in names:
      store.write(folder / name, name.encode())
    # Its name begins alike, and it is elsewhere.
    store.write(folder.with_name("runaway") / "c.txt", b"")
    self.assertCountEqual(store.files(folder), names)
    self.assertEqual(store.children(folder), ["a.txt", "b.txt", "deep"])
    self.assertLen(store.children(folder / "deep"), 11)
    self.assertEqual(store.read(folder / names[3]), names[3].encode())
    store.write(folder / "a.txt", b"new")
    self.assertEqual(store.read(folder / "a.txt"), b"new")
    store.remove(folder / "a.txt")
    self.assertIsNone(store.read(folder / "a.txt"))
    with self.assertRaises(FileNotFoundError):
      store.remove(folder / "a.txt")
    self.assertEqual(store.children(folder), ["b.txt", "deep"])
    for _ in range(2):  # The second time there is none.
      store.remove_all(folder)
      self.assertEmpty(store.files(folder))
    self.assertLen(store.files(folder.with_name("runaway")), 1)

  def test_a_file_is_no_folder(self, where):
    folder = self.folder(where)
    store.write(folder / "a.txt", b"1")
    self.assertIsNone(store.read(folder / "a.txt" / "b"))
    self.assertEmpty(store.files(folder / "a.txt"))

  def test_a_version_changes_with_each_write(self, where):
    # However long the steps of this test take, it writes just now.
    self.enter_context(mock.patch.object(store, "_SETTLED", 3600 * 10**9))
    file = self.folder(where) / "x"
    seen = set()
    for _ in range(3):
      store.write(file, b"12")
      seen.add(store.files(file.parent)["x"])
      self.assertIn(store.version(file), seen)
      time.sleep(0.02)
    self.assertIsNone(store.version(file / "none"))
    self.assertLen(seen, 3)
    self.assertEqual({version.size for version in seen}, {2})
    (version, *_) = seen
    self.assertEqual(store.is_settled(file, version), where == "gs")
    old = str(time.time_ns() - 2 * 3600 * 10**9)
    self.assertTrue(store.is_settled(file, version._replace(generation=old)))

  def test_the_start_of_a_file(self, where):
    file = self.folder(where) / "x"
    self.assertIsNone(store.read(file, 3))
    store.write(file, b"12345")
    self.assertEqual(store.read(file, 3), b"123")
    self.assertEqual(store.read(file, 9), b"12345")

  def test_the_digest_is_of_all_parts(self, where):
    folder = self.folder(where)
    self.enter_context(mock.patch.object(store, "_PART", 7))
    for size in (0, 7, 20):
      store.write(folder / "x", b"a" * size)
      found = store.digest(folder / "x", store.files(folder)["x"])
      self.assertEqual(found[0], size)
    # Of twenty letters a: printf by hand into sha256sum.
    self.assertEqual(
      found[1],
      "42492da06234ad0ac76f5d5debdb6d1ae027cffbe746a1c13b89bb8bc0139137",
    )

  def test_staged_files_arrive_together_or_not_at_all(self, where):
    folder = self.folder(where)
    with store.staged(folder, stale="*.bin") as local:
      (local / "deep").mkdir()
      for name in ("old.bin", "deep/x.json", "kept.txt"):
        (local / name).write_text(name)
    if where == "gs":
      with self.assertRaisesRegex(ValueError, "stop"):
        with store.staged(folder) as local:
          (local / "kept.txt").write_text("half")
          raise ValueError("stop")
      with store.staged(folder, stale="*.bin") as local:
        (local / "new.bin").write_text("new")
      self.assertCountEqual(
        store.files(folder), ["deep/x.json", "kept.txt", "new.bin"]
      )
    self.assertEqual(store.read(folder / "kept.txt"), b"kept.txt")

  def test_a_local_copy_for_libraries(self, where):
    folder = self.folder(where)
    for name in ("config.json", "model.bin", "checkpoints/7"):
      store.write(folder / name, name.encode())
    with store.local(folder, skip=["*.bin"]) as local:
      self.assertEqual((local / "config.json").read_text(), "config.json")
      self.assertEqual(local == folder, where == "disk")
      if where == "gs":
        self.assertEqual(os.listdir(local), ["config.json"])
    self.assertEqual(local.exists(), where == "disk")
    with store.local(folder / "model.bin") as file:
      self.assertEqual(file.name, "model.bin")
      self.assertEqual(file.read_text(), "model.bin")

  def test_in_order_and_not_all_at_once(self, where):
    asked, lock = [], threading.Lock()

    def square(n):
      with lock:
        asked.append(n)
      return n * n

    found = store.prefetch(square, range(1000), self.folder(where))
    self.assertEqual([next(found) for _ in range(5)], [0, 1, 4, 9, 16])
    self.assertLess(len(asked), 100)
    self.assertEqual(list(found), [n * n for n in range(5, 1000)])

  def test_an_error_of_one_is_raised_in_its_turn(self, where):
    found = store.prefetch(
      lambda n: 1 // (n - 3), range(99), self.folder(where)
    )
    self.assertEqual([next(found) for _ in range(3)], [-1, -1, -1])
    with self.assertRaises(ZeroDivisionError):
      next(found)


class BucketTest(StoreTest):
  @parameterized.product(source=["disk", "gs"], target=["disk", "gs"])
  def test_copies(self, source, target):
    first = self.folder(source) / "one"
    second = self.folder(target) / "deep" / "two"
    store.write(first, b"\0bytes")
    store.copy(first, second)
    self.assertEqual(store.read(second), b"\0bytes")

  def test_a_local_copy_of_nothing(self):
    with self.assertRaises(FileNotFoundError):
      with store.local("gs://b/none"):
        pass

  def test_names_of_other_kinds_pass(self):
    with store.local("Qwen/Qwen2.5-Math-1.5B") as name:
      self.assertEqual(name, "Qwen/Qwen2.5-Math-1.5B")

  def test_what_others_write_is_seen(self):
    folder = self.folder("gs")
    store.write(folder / "mine", b"1")
    self.assertEqual(store.children(folder), ["mine"])
    self.bucket.put("b", "some/run/theirs", b"2")
    self.assertEqual(store.children(folder), ["mine", "theirs"])
    self.assertTrue((folder / "theirs").exists())
    del self.bucket.objects["b", "some/run/mine"]
    self.assertFalse((folder / "mine").exists())

  def test_when_a_file_was_written(self):
    for name, when in (("disk", 1e9), ("gs", 1767225600.0)):
      file = self.folder(name) / "x"
      self.assertIsNone(store.modified(file))
      store.write(file, b"1")
      if name == "disk":
        os.utime(file, (0, when))
      # Every object of the server is of 2026.
      self.assertEqual(store.modified(file), when)

  def test_a_server_that_is_busy_is_asked_again(self):
    left = [503, 429]

    def hook(operation, name):
      del name
      if operation == "write" and left:
        raise fake_gcs.Refused(left.pop())

    self.bucket.hook = hook
    store.write(self.folder("gs") / "x", b"1")
    self.assertEqual(store.read(self.folder("gs") / "x"), b"1")
    self.assertEmpty(left)

  def test_what_arrives_changed_is_an_error(self):
    put = self.bucket.put

    def garbled(bucket, name, data):
      return put(bucket, name, data[:-1])

    with mock.patch.object(self.bucket, "put", garbled):
      with self.assertRaisesRegex(OSError, "(?i)md5|checksum"):
        store.write(self.folder("gs") / "x", b"123")


class SweepTest(absltest.TestCase):
  def test_folders_that_vanish_meanwhile_are_left_out(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    for name in ("a/x", "a/.y.tmp", "b/c/x", "d"):
      store.write(folder / name, b"")
    look = os.scandir

    def look_slowly(path):
      if str(path) == str(folder / "b" / "c"):
        shutil.rmtree(path)
      return look(path)

    with mock.patch.object(os, "scandir", look_slowly):
      self.assertCountEqual(store.files(folder), ["a/x", "a/.y.tmp", "d"])
      store.write(folder / "b" / "c" / "x", b"")
      store.sweep(folder, store.TEMPORARY)
    self.assertCountEqual(store.files(folder), ["a/x", "d"])

  def test_a_disk_that_fails_is_no_empty_folder(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    broken = mock.Mock(side_effect=OSError(5, "Input/output error"))
    with (
      mock.patch.object(os, "scandir", broken),
      self.assertRaisesRegex(OSError, "Input/output"),
    ):
      store.files(folder)

  def test_a_full_disk_is_said_with_the_file(self):
    file = pathlib.Path(self.create_tempdir().full_path) / "a" / "x.json"
    store.write(file, b"before")
    with (
      self.assertRaisesRegex(OSError, f"^{file} cannot be written .File too"),
      full_disk.full(),
    ):
      store.write(file, b"x" * 200)
    # What is there is what was, and nothing else.
    self.assertEqual(store.files(file.parent), {"x.json": store.version(file)})
    self.assertEqual(file.read_bytes(), b"before")

  def test_an_error_that_names_its_file_stays(self):
    error = FileNotFoundError(2, "No such file or directory", "y")
    with self.assertRaises(FileNotFoundError) as caught:
      with store.writing("x"):
        raise error
    self.assertIs(caught.exception, error)

  def test_only_temporaries_go(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    names = [".x.0.tmp", "deep/.y.1.tmp", "deep/y", ".hidden", "z.tmp"]
    for name in names:
      store.write(folder / name, b"")
    store.sweep(folder, store.TEMPORARY)
    self.assertCountEqual(store.files(folder), names[2:])
    store.sweep(folder / "none", store.TEMPORARY)
    store.sweep(folder, "y", "z*")
    self.assertCountEqual(store.files(folder), [".hidden"])


if __name__ == "__main__":
  absltest.main()
