"""Records in a bucket: the same bytes as on a disk, whenever a writer dies."""

import pathlib

from absl import logging
from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar_jax.storage import layout, manifests, records, store
from tests import fake_gcs

_SHARDS = 2


def stage(folder: store.Path) -> None:
  """Makes a folder as a stage does: shards, a model, and the manifest last."""
  if manifests.reopen(folder) is not None:
    return
  for index in range(_SHARDS):
    path = folder / "deep" / records.shard_name(index, _SHARDS)
    if not records.is_complete(path):
      records.write_shard(path, [{"index": index, "text": "x" * index}])
  records.write_shards(folder / "many", ({"n": n} for n in range(3)), 2)
  with store.staged(folder, stale="*.bin") as local:
    (local / "model.bin").write_bytes(b"\0" * 99)
    (local / "config.json").write_text("{}")
  manifests.write(folder, {"rows": _SHARDS})


class RecordsInABucketTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    # What gcsfs says of each refusal.
    level = logging.get_verbosity()
    self.addCleanup(logging.set_verbosity, level)
    logging.set_verbosity(logging.FATAL)
    self.bucket, _ = self.enter_context(fake_gcs.serve("b"))
    self.folder = store.path("gs://b/run/trees")
    disk = pathlib.Path(self.create_tempdir().full_path)
    stage(disk)
    self.wanted = {
      name: (disk / name).read_bytes() for name in store.files(disk)
    }

  def found(self) -> dict[str, bytes]:
    return {
      name.removeprefix("run/trees/"): data
      for (_, name), (data, _) in self.bucket.objects.items()
      if name.startswith("run/trees/")
    }

  @parameterized.parameters(b"\r", b"\r\n", b"\n", b"\r\n\r\n\r")
  def test_bytes_come_back_whatever_they_end_with(self, end):
    path = self.folder / "object"
    store.write(path, end + b"bytes" + end)
    self.assertEqual(store.read(path), end + b"bytes" + end)

  def die(self, point: int) -> bool:
    """Runs the stage up to a point; returns whether it got there."""
    crash = fake_gcs.Crash(point)
    self.bucket.hook = crash
    try:
      stage(self.folder)
    except OSError:
      self.assertTrue(crash.over)
    self.bucket.hook = lambda *_: None
    return crash.over

  def test_the_same_bytes_as_on_a_disk(self):
    stage(self.folder)
    self.assertEqual(self.found(), self.wanted)
    self.assertEqual(manifests.read(self.folder)["rows"], _SHARDS)

  def test_a_writer_that_dies_anywhere(self):
    point = 1
    while self.die(point):
      # A manifest is there only if all else is.
      if layout.MANIFEST in self.found():
        self.assertEqual(self.found(), self.wanted)
      else:
        self.assertIsNone(manifests.read(self.folder))
      stage(self.folder)
      self.assertEqual(self.found(), self.wanted)
      self.bucket.objects.clear()
      point += 1
    # Before and after each of its files, and of the versions that were hashed.
    self.assertEqual(point - 1, 2 * (len(self.wanted) + 1))

  @settings(max_examples=7, deadline=None)
  @given(st.lists(st.integers(1, 9), max_size=3))
  def test_writers_that_die_again_and_again(self, points):
    for point in points:
      self.die(point)
    stage(self.folder)
    self.assertEqual(self.found(), self.wanted)
    self.bucket.objects.clear()

  @parameterized.parameters("missing", "longer", "flipped", "manifest")
  def test_a_damaged_object_is_found(self, damage):
    stage(self.folder)
    name = f"run/trees/deep/{records.shard_name(1, _SHARDS)}"
    if damage == "manifest":
      name = f"run/trees/{layout.MANIFEST}"
    data, _ = self.bucket.objects["b", name]
    if damage == "missing":
      del self.bucket.objects["b", name]
    elif damage == "longer":
      self.bucket.put("b", name, data + b"\n")
    else:
      self.bucket.put("b", name, data.replace(b"1", b"2", 1))
    self.assertIsNone(manifests.read(self.folder))
    stage(self.folder)
    self.assertEqual(self.found(), self.wanted)

  def test_a_finished_stage_costs_three_calls(self):
    stage(self.folder)
    self.bucket.calls.clear()
    self.assertIsNotNone(manifests.read(self.folder))
    kinds = [operation for operation, _ in self.bucket.calls]
    # The manifest, and the versions that were hashed.
    self.assertEqual(kinds.count("read"), 2)
    # Pages of one listing.
    self.assertEqual(set(kinds), {"read", "list"})


if __name__ == "__main__":
  absltest.main()
