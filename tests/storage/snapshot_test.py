"""A folder looked at from outside, on a disk and in a bucket."""

import json
import pathlib

import jax.numpy as jnp
from absl.testing import absltest, parameterized

from rstar_jax.storage import checkpoints, layout, manifests, records, store
from rstar_jax.storage.snapshot import Snapshot
from tests import fake_gcs


class SnapshotTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.bucket, _ = self.enter_context(fake_gcs.serve("bucket"))
    disk = pathlib.Path(self.create_tempdir().full_path)
    self.tops = {"disk": disk, "bucket": store.path("gs://bucket/run")}

  @parameterized.parameters("disk", "bucket")
  def test_names_and_contents(self, kind):
    top = self.tops[kind]
    self.assertEqual(Snapshot(top).folders(), [])
    for name, data in {
      "a.json": b'{"b": 2}',
      "x/list.json": b"[1]",
      "x/y/rows": b'{"c": 3}\n[4]\n{"d": 5}\n{"e": ',
      "xy/z": b"\xff",
    }.items():
      store.write(top / name, data)
    files = Snapshot(top)
    self.assertIn("x/y/rows", files)
    self.assertNotIn("x/y", files)
    self.assertEqual(files.folders(), ["x", "xy"])
    self.assertEqual(files.folders("x"), ["y"])
    self.assertEqual(files.folders("nowhere"), [])
    self.assertEqual(files.below("x"), ["list.json", "y/rows"])
    self.assertEqual(files.read("a.json"), {"b": 2})
    for name in ("x/list.json", "xy/z", "nowhere"):
      self.assertEqual(files.read(name), {})
    self.assertEqual(files.lines("x/y/rows"), [{"c": 3}, {"d": 5}])
    self.assertEqual(files.lines("nowhere"), [])

  @parameterized.parameters("disk", "bucket")
  def test_whole_as_told_by_the_reader_of_manifests(self, kind):
    top = self.tops[kind]

    def agree(expected: bool) -> None:
      read = manifests.read(top / "trees") is not None
      self.assertEqual((Snapshot(top).whole("trees"), read), (expected,) * 2)

    agree(False)
    path = top / "trees" / "deep" / records.shard_name(0, 1)
    records.write_shard(path, [{"a": 1}])
    agree(False)
    manifests.write(top / "trees", {})
    agree(True)
    data = store.read(path)
    store.write(path, data[:-1])
    agree(False)
    store.write(path, data)
    agree(True)
    store.remove(path)
    agree(False)

  def test_a_file_that_goes_while_one_looks(self):
    top = self.tops["disk"]
    records.write_shard(top / "trees" / records.shard_name(0, 1), [])
    manifests.write(top / "trees", {})
    files, unread = Snapshot(top), Snapshot(top)
    store.remove(top / "trees" / records.shard_name(0, 1))
    self.assertTrue(files.whole("trees"))
    self.assertFalse(Snapshot(top).whole("trees"))
    store.remove(top / "trees" / layout.MANIFEST)
    # What was read stays as it was.
    self.assertIn("files", files.read(f"trees/{layout.MANIFEST}"))
    self.assertEqual(unread.read(f"trees/{layout.MANIFEST}"), {})

  @parameterized.parameters("disk", "bucket")
  def test_checkpoints_are_those_that_a_training_finds(self, kind):
    folder = self.tops[kind] / "ppm" / "checkpoints"
    with checkpoints.Checkpoints(folder) as saver:
      for step in (2, 11):
        saver.save(step, {"a": jnp.arange(3.0)})
      saver.close()
      found = Snapshot(self.tops[kind]).checkpoints("ppm/checkpoints")
      self.assertEqual(found, [2, 11])
    if kind == "bucket":
      # Half of one: whatever is written last is not there.
      for _, name in list(self.bucket.objects):
        if name.endswith("/11/commit_success.txt"):
          del self.bucket.objects["bucket", name]
    else:
      (folder / "11").rename(folder / "11.orbax-checkpoint-tmp")
    with checkpoints.Checkpoints(folder) as saver:
      self.assertEqual(saver.steps(), [2])
    found = Snapshot(self.tops[kind]).checkpoints("ppm/checkpoints")
    self.assertEqual(found, [2])

  def test_a_manifest_of_nonsense_is_none(self):
    top = self.tops["disk"]
    nothing = json.dumps({"files": {}})
    nonsense = [{"files": each} for each in (3, ["a"], {"a": 3}, {"a": {}})]
    for text in ("", "{", "[]", "{}", "[" * 99999, *map(json.dumps, nonsense)):
      store.write(top / "a" / layout.MANIFEST, text.encode())
      self.assertFalse(Snapshot(top).whole("a"))
      self.assertEqual(Snapshot(top).lines("a/b"), [])
    store.write(top / "a" / layout.MANIFEST, nothing.encode())
    self.assertTrue(Snapshot(top).whole("a"))


if __name__ == "__main__":
  absltest.main()
