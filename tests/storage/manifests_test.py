"""Tests of rstar_jax.storage.manifests."""

import os
import time
from unittest import mock

from absl.testing import absltest, parameterized
from etils import epath

from rstar_jax.storage import layout, manifests, records, store


class ManifestTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    # records_test sees to fsync; hundreds of them are slow on a busy disk.
    self.enter_context(mock.patch.object(os, "fsync"))
    self.folder = epath.Path(self.create_tempdir().full_path) / "made"
    for index in range(3):
      name = records.shard_name(index, 3)
      records.write_shard(self.folder / "deep" / name, [{"index": index}])
    (self.folder / "empty.txt").write_bytes(b"")
    manifests.write(self.folder, {"round": 2, "rows": 3})

  def test_round_trip(self):
    manifest = manifests.read(self.folder)
    self.assertEqual(manifest["round"], 2)
    self.assertCountEqual(
      manifest["files"],
      ["empty.txt", *(f"deep/{records.shard_name(i, 3)}" for i in range(3))],
    )
    self.assertEqual(
      manifest["files"]["empty.txt"],
      {
        "size": 0,
        # The well-known digest of nothing.
        "sha256": "e3b0c44298fc1c149afbf4c8996fb924"
        "27ae41e4649b934ca495991b7852b855",
      },
    )

  def test_the_same_folder_gives_the_same_bytes(self):
    before = (self.folder / layout.MANIFEST).read_bytes()
    manifests.write(self.folder, {"rows": 3, "round": 2})
    self.assertEqual((self.folder / layout.MANIFEST).read_bytes(), before)

  def test_what_no_finished_folder_needs_is_removed_and_never_listed(self):
    late = self.folder / "deep" / "begun-shard-00001-of-00002-ab.jsonl"
    names = [".x.tmp", "begun-shard-00000-of-00002-cd.jsonl", "begun", "kept"]
    for name in names:
      store.write(self.folder / name, b"x")
    sweep = store.sweep

    def slow_sweep(*args):
      sweep(*args)
      store.write(late, b"x")

    with mock.patch.object(store, "sweep", slow_sweep):
      manifests.write(self.folder, {})
    self.assertFalse((self.folder / names[1]).exists())
    listed = manifests.read(self.folder)["files"]
    self.assertNotIn("deep/" + late.name, listed)
    self.assertContainsSubset(["begun", "kept"], listed)
    self.assertNoCommonElements(names[:2], listed)
    # The folder is as finished without it.
    late.unlink()
    self.assertIsNotNone(manifests.read(self.folder))

  def test_a_folder_that_is_removed_is_not_taken_for_whole(self):
    with mock.patch.object(store, "is_settled", return_value=True):
      self.assertIsNotNone(manifests.read(self.folder))
    cache = self.folder.with_name(f"{layout.VERIFIED}{self.folder.name}.json")
    self.assertTrue(cache.exists())
    with mock.patch.object(store, "remove_all", side_effect=InterruptedError):
      with self.assertRaises(InterruptedError):
        manifests.remove(self.folder)
    self.assertIsNone(manifests.read(self.folder))
    manifests.remove(self.folder)
    self.assertFalse(self.folder.exists() or cache.exists())
    manifests.remove(self.folder)

  def test_named_files_only(self):
    manifests.write(self.folder, {}, files=["empty.txt"])
    self.assertEqual(list(manifests.read(self.folder)["files"]), ["empty.txt"])
    with self.assertRaises(FileNotFoundError):
      manifests.write(self.folder, {}, files=["none.txt"])

  def test_own_keys_are_refused(self):
    with self.assertRaisesRegex(ValueError, "files"):
      manifests.write(self.folder, {"files": 1})

  @parameterized.parameters("missing", "longer", "flipped")
  def test_a_damaged_file_makes_the_stage_be_made_again(self, damage):
    name = f"deep/{records.shard_name(1, 3)}"
    path = self.folder / name
    data = path.read_bytes()
    if damage == "missing":
      path.unlink()
    elif damage == "longer":
      path.write_bytes(data + b"\n")
    else:
      path.write_bytes(data.replace(b"1", b"2", 1))
    with self.assertLogs(level="WARNING") as logs:
      self.assertIsNone(manifests.read(self.folder))
    self.assertIn(name, logs.output[0])

  def test_a_changed_shard_is_not_kept(self):
    path = self.folder / "deep" / records.shard_name(1, 3)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    # Its header and its size are right.
    self.assertTrue(records.is_complete(path))
    with self.assertLogs(level="WARNING"):
      self.assertIsNone(manifests.read(self.folder))
    self.assertTrue(path.exists())
    with self.assertLogs(level="WARNING"):
      self.assertIsNone(manifests.reopen(self.folder))
    self.assertFalse(path.exists())
    self.assertFalse((self.folder / layout.MANIFEST).exists())

  def test_a_folder_is_reopened_whatever_dies_meanwhile(self):
    manifest = manifests.read(self.folder)
    self.assertEqual(manifests.reopen(self.folder), manifest)
    path = self.folder / "deep" / records.shard_name(1, 3)
    path.write_bytes(path.read_bytes()[:-1])
    with mock.patch.object(store, "remove", side_effect=InterruptedError):
      with self.assertRaises(InterruptedError):
        manifests.reopen(self.folder)
    self.assertIsNone(manifests.read(self.folder))
    remove = store.remove

    def dies(file):
      remove(file)
      raise InterruptedError

    with mock.patch.object(store, "remove", dies):
      with self.assertRaises(InterruptedError):
        manifests.reopen(self.folder)
    # Never is a changed file there without a manifest that says so.
    self.assertFalse(path.exists())
    self.assertTrue((self.folder / layout.MANIFEST).exists())
    self.assertIsNone(manifests.reopen(self.folder))
    self.assertFalse((self.folder / layout.MANIFEST).exists())
    self.assertIsNone(manifests.reopen(self.folder))
    # One that cannot be read says nothing of any file.
    store.write(self.folder / layout.MANIFEST, b"{")
    self.assertIsNone(manifests.reopen(self.folder))
    self.assertFalse((self.folder / layout.MANIFEST).exists())
    self.assertTrue((self.folder / "empty.txt").exists())

  def test_no_changed_shard_is_kept_beside_other_damage(self):
    paths = [self.folder / "deep" / records.shard_name(i, 3) for i in range(3)]
    (self.folder / "empty.txt").unlink()
    for path in paths[1:]:
      data = path.read_bytes()
      path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with self.assertLogs(level="WARNING") as logs:
      self.assertIsNone(manifests.reopen(self.folder))
    self.assertEqual(
      [records.is_complete(path) for path in paths], [True, False, False]
    )
    (line,) = logs.output
    self.assertIn("empty.txt, which is missing; ", line)
    for path in paths[1:]:
      self.assertIn(f"{path.name}, which has changed (", line)
    self.assertNotIn(paths[0].name, line)

  def test_a_warning_names_the_first_damaged_files(self):
    for index in range(9):
      store.write(self.folder / f"file-{index}", b"x")
    manifests.write(self.folder, {})
    for index in range(9):
      store.remove(self.folder / f"file-{index}")
    with self.assertLogs(level="WARNING") as logs:
      self.assertIsNone(manifests.read(self.folder))
    self.assertRegex(
      logs.output[0], "file-4, which is missing; and 4 more: remaking it$"
    )
    self.assertNotIn("file-5", logs.output[0])

  def hashed(self) -> list[str]:
    """Reads the manifest; returns the names of the files that are read."""
    names = []

    def digest(file, version):
      names.append(file.name)
      return digest_of(file, version)

    digest_of = store.digest
    with mock.patch.object(store, "digest", digest):
      found = manifests.read(self.folder)
    self.assertIsNotNone(found)
    return names

  def age(self, seconds: int) -> None:
    """Makes all files as old as that."""
    then = time.time_ns() - seconds * 10**9
    for name in store.files(store.path(self.folder)):
      os.utime(self.folder / name, ns=(then, then))

  def test_what_was_hashed_is_not_hashed_again(self):
    self.age(60)
    self.assertLen(self.hashed(), 4)
    self.assertEmpty(self.hashed())
    # It is no part of the folder, and may be lost.
    verified = self.folder.parent / f".verified-{self.folder.name}.json"
    self.assertTrue(verified.exists())
    before = (self.folder / layout.MANIFEST).read_bytes()
    manifests.write(self.folder, {"rows": 3, "round": 2})
    self.assertEqual((self.folder / layout.MANIFEST).read_bytes(), before)
    for damage in (b"", b"[", b"[]", b'{"empty.txt": [0]}', b"\xff"):
      verified.write_bytes(damage)
      self.assertNotEmpty(self.hashed())
    verified.unlink()
    self.assertLen(self.hashed(), 4)

  def test_what_killed_processes_left_of_a_cache_is_removed(self):
    self.age(60)
    left = f"..verified-{self.folder.name}.json.12ab.tmp"
    others = ["..verified-others.json.12ab.tmp", ".config.json.12ab.tmp"]
    for name in (left, *others):
      store.write(self.folder.parent / name, b"{")
    self.hashed()
    names = store.children(self.folder.parent)
    self.assertNotIn(left, names)
    self.assertContainsSubset(others, names)

    # One that was alive has no cache, and goes on.
    def gone(source, target):
      del target
      os.unlink(source)
      raise FileNotFoundError(source)

    store.remove(self.folder.parent / f".verified-{self.folder.name}.json")
    with mock.patch.object(os, "replace", gone):
      self.assertLen(self.hashed(), 4)
    self.assertLen(self.hashed(), 4)

  def test_what_is_written_again_is_hashed_again(self):
    # However long the steps of this test take, it writes just now.
    self.enter_context(mock.patch.object(store, "_SETTLED", 3600 * 10**9))
    self.age(3 * 3600)
    self.hashed()
    name = f"deep/{records.shard_name(1, 3)}"
    data = (self.folder / name).read_bytes()
    (self.folder / name).write_bytes(data)
    self.assertEqual(self.hashed(), [records.shard_name(1, 3)])
    # Another write within the same tick of the clock would not be seen.
    self.assertEqual(self.hashed(), [records.shard_name(1, 3)])
    self.age(2 * 3600)
    (self.folder / name).write_bytes(data.replace(b"1", b"2", 1))
    with self.assertLogs(level="WARNING"):
      self.assertIsNone(manifests.read(self.folder))

  def test_a_folder_that_cannot_be_written_is_read(self):
    self.age(60)
    with mock.patch.object(store, "write", side_effect=PermissionError):
      self.assertLen(self.hashed(), 4)

  @parameterized.parameters(b"", b"{}", b"[]", b"\xff", b'{"sha256": 1}')
  def test_a_damaged_manifest(self, data):
    (self.folder / layout.MANIFEST).write_bytes(data)
    with self.assertLogs(level="WARNING"):
      self.assertIsNone(manifests.read(self.folder))

  @parameterized.parameters(
    b"[" * 99999,
    b'{"files": {}, "sha256": "x", "a": NaN}',
    b'{"files": {}, "sha256": "x", "a": 1e999}',
    b"\xff",
    b"3",
    b'{"files": 3}',
    b'{"sha256": []}',
  )
  def test_nonsense(self, data):
    (self.folder / layout.MANIFEST).write_bytes(data)
    with self.assertLogs(level="WARNING") as logs:
      self.assertIsNone(manifests.read(self.folder))
    self.assertRegex(logs.output[0], "MANIFEST.json .*: remaking it")

  def test_an_edited_manifest(self):
    path = self.folder / layout.MANIFEST
    path.write_text(path.read_text().replace('"round": 2', '"round": 3'))
    with self.assertLogs(level="WARNING") as logs:
      self.assertIsNone(manifests.read(self.folder))
    self.assertIn("has changed", logs.output[0])

  def test_no_manifest_is_no_warning(self):
    with self.assertNoLogs(level="WARNING"):
      self.assertIsNone(manifests.read(self.folder / "deep"))


if __name__ == "__main__":
  absltest.main()
