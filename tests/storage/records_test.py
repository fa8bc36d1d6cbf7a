"""Tests of rstar_jax.storage.records."""

import dataclasses
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar_jax.storage import layout, records, store

_JSON = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-(2**60), 2**60)
  | st.floats(allow_nan=False, allow_infinity=False)
  | st.text(max_size=7),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3)
  ),
  max_leaves=7,
)
_ROWS = st.lists(st.dictionaries(st.text(max_size=5), _JSON), max_size=5)


class ShardTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = epath.Path(self.create_tempdir().full_path)
    self.path = self.folder / "shard.jsonl"

  def sha256(self, data: bytes) -> bytes:
    done = subprocess.run(["sha256sum"], input=data, capture_output=True)
    return done.stdout.split()[0]

  def test_bytes_are_a_header_and_these_rows(self):
    rows = [{"b": 1, "a": "é\u2028"}, {}]
    records.write_shard(self.path, rows, {"right": 2})
    data = self.path.read_bytes()
    # A skippable frame of RFC 8878: mark and size, little-endian.
    mark, size = struct.unpack("<II", data[:8])
    self.assertEqual(mark, 0x184D2A5A)
    header, packed = data[8 : 8 + size], data[8 + size :]
    said = b'{"bytes":%d,"info":{"right":2},"rows":2,"sha256":"%s"}\n' % (
      len(packed),
      self.sha256(packed),
    )
    check = b'{"bytes"', b'{"check":"%s","bytes"' % self.sha256(said)
    self.assertEqual(json.loads(header), json.loads(said.replace(*check)))
    body = b'{"a":"\\u00e9\\u2028","b":1}\n{}\n'
    self.assertEqual(records.zstd.decompress(packed), body)
    # Any reader of zstd passes over the header.
    self.assertEqual(records.zstd.decompress(data), body)
    records.write_shard(self.path, iter(rows), {"right": 2})
    self.assertEqual(self.path.read_bytes(), data)

  def test_row_by_row(self):
    rows = [{"n": n} for n in range(5)]
    writer = records.ShardWriter(self.path)
    for row in rows:
      writer.put(row)
      self.assertFalse(self.path.exists())
    writer.write({"sum": 10})
    found = records.header(self.path)
    self.assertEqual((found["rows"], found["info"]), (5, {"sum": 10}))
    data = self.path.read_bytes()
    records.write_shard(self.path, rows, {"sum": 10})
    self.assertEqual(self.path.read_bytes(), data)

  def test_a_header_of_any_size(self):
    for size in (0, 1 << 16, 1 << 18):
      info = {"ids": ["x" * size]}
      records.write_shard(self.path, [{"a": 1}], info)
      self.assertEqual(records.header(self.path)["info"], info)
      self.assertEqual(records.read_shard(self.path), [{"a": 1}])

  def test_rows_are_written_and_read_one_by_one(self):
    def rows():
      for n in range(40):
        yield {"n": n, "x": "abc" * 100_000}

    tracemalloc.start()
    self.addCleanup(tracemalloc.stop)
    records.write_shard(self.path, rows())
    for n, row in enumerate(records.rows_of(self.path)):
      self.assertEqual(row["n"], n)
    # All rows have 12 MB.
    self.assertLess(tracemalloc.get_traced_memory()[1], 4_000_000)

  def test_shards_of_earlier_versions_are_read(self):
    body = b'{"a":1}\n{"b":[2]}\n'
    digest = hashlib.sha256(body).hexdigest()
    footer = json.dumps({"footer": {"rows": 2, "sha256": digest}}).encode()
    self.path.write_bytes(body + footer + b"\n")
    rows = [{"a": 1}, {"b": [2]}]
    self.assertEqual(records.read_shard(self.path), rows)
    self.assertEqual(list(records.each_row(self.path)), rows)
    self.assertEqual(records.header(self.path), {"rows": 2, "sha256": digest})

  @settings(max_examples=50, deadline=None)
  @given(_ROWS)
  def test_round_trip(self, rows):
    with mock.patch.object(os, "fsync"):  # 50 real ones are slow.
      records.write_shard(self.path, rows)
    self.assertTrue(records.is_complete(self.path))
    self.assertEqual(records.read_shard(self.path), rows)

  def test_numpy_and_dataclasses_become_plain(self):
    @dataclasses.dataclass
    class Point:
      x: int
      y: tuple[int, ...]

    row = {
      "n": np.int64(3),
      "f": np.float32(0.5),
      "a": np.arange(3),
      "b": np.bool_(True),
      "p": Point(1, (2, 3)),
    }
    records.write_shard(self.path, [row])
    expected = {
      "n": 3,
      "f": 0.5,
      "a": [0, 1, 2],
      "b": True,
      "p": {"x": 1, "y": [2, 3]},
    }
    self.assertEqual(records.read_shard(self.path), [expected])

  def test_refuses_what_json_cannot_hold(self):
    with self.assertRaises(ValueError):
      records.write_shard(self.path, [{"x": float("nan")}])
    with self.assertRaisesRegex(TypeError, "set is not JSON-able"):
      records.write_shard(self.path, [{"x": {1}}])
    self.assertEqual(list(self.folder.iterdir()), [])

  def test_every_truncation_and_every_flipped_bit_is_seen(self):
    records.write_shard(self.path, [{"text": "a\nb"}, {"q": -0.5}])
    data = self.path.read_bytes()
    changed = [data[:size] for size in range(len(data))]
    for place in range(len(data)):
      flipped = bytearray(data)
      flipped[place] ^= 1
      changed.append(bytes(flipped))
    for bad in changed:
      self.path.write_bytes(bad)
      with self.assertRaisesRegex(records.CorruptShard, str(self.path)):
        records.read_shard(self.path)
      if len(bad) < len(data):
        self.assertFalse(records.is_complete(self.path))
    self.path.write_bytes(data)
    self.assertTrue(records.is_complete(self.path))

  @parameterized.parameters(
    (b"", "cut short"),
    (b'{"a":1}\n', "not a footer"),
    (b"\xff\n", "not a footer"),
    (b'{"footer":{"rows":1,"sha256":""}}\n', "says 1 rows, and has 0"),
    (b'{"footer":{"rows":0,"sha256":""}}\n', "do not match"),
  )
  def test_says_what_is_wrong(self, data, reason):
    self.path.write_bytes(data)
    with self.assertRaisesRegex(records.CorruptShard, reason):
      records.read_shard(self.path)
    self.assertFalse(records.is_complete(self.path))

  def test_a_missing_shard(self):
    self.assertFalse(records.is_complete(self.path))
    with self.assertRaisesRegex(records.CorruptShard, "no such shard"):
      records.read_shard(self.path)

  def test_names(self):
    self.assertEqual(
      records.shard_name(2, 13), "shard-00002-of-00013.jsonl.zst"
    )
    with self.assertRaisesRegex(ValueError, "13"):
      records.shard_name(13, 13)


class EachRowTest(absltest.TestCase):
  def test_rows_of_a_shard(self):
    path = epath.Path(self.create_tempdir().full_path) / "shard.jsonl"
    self.assertEqual(list(records.each_row(path)), [])
    rows = [{"a": "\u2028"}, {"a": [1]}]
    records.write_shard(path, rows)
    self.assertEqual(list(records.each_row(path)), rows)

  def test_a_shard_that_is_cut_is_read_as_far_as_it_goes(self):
    path = epath.Path(self.create_tempdir().full_path) / "shard"
    rows = [{"x": os.urandom(999).hex()} for _ in range(999)]
    records.write_shard(path, rows)
    path.write_bytes(path.read_bytes()[:-99_999])
    with self.assertLogs(level="WARNING") as logs:
      found = list(records.each_row(path))
    self.assertStartsWith(logs.output[0], "WARNING:absl:")
    self.assertIn("the rest", logs.output[0])
    self.assertEqual(found, rows[: len(found)])
    self.assertBetween(len(found), 500, 950)

  def test_what_is_being_written_is_read_as_far_as_it_goes(self):
    path = epath.Path(self.create_tempdir().full_path) / "metrics.jsonl"
    path.write_text('{"step": 1, "a": NaN}\n{"step": 2}\n{"step": 3, "')
    self.assertEqual(
      list(records.each_row(path)), [{"step": 1, "a": None}, {"step": 2}]
    )

  def test_lines_that_are_no_rows_are_left_out_and_said(self):
    path = epath.Path(self.create_tempdir().full_path) / "metrics.jsonl"
    bad = ["3", "[" * 99999, "{", '{"a": 1, "a": 2}', "\0" * 9, '"footer"']
    path.write_text("\n".join(['{"a": 1}', *bad, '{"b": "\\ud800"}', "{"]))
    with self.assertLogs(level="WARNING") as logs:
      rows = list(records.each_row(path))
    self.assertEqual(rows, [{"a": 1}, {"b": "\ufffd"}])
    self.assertRegex(logs.output[0], "left out 6 .* first: line 2 is no object")


class NonsenseTest(parameterized.TestCase):
  """What is not what was written is made again, whatever else it is."""

  @parameterized.parameters(
    b"[" * 99999,
    b'{"files": {}, "sha256": "x", "a": NaN}',
    b'{"files": {}, "sha256": "x", "a": 1e999}',
    b"\xff",
    b"3",
    b'{"files": 3}',
    b'{"sha256": []}',
  )
  def test_manifest(self, data):
    folder = epath.Path(self.create_tempdir().full_path)
    (folder / records.MANIFEST).write_bytes(data)
    with self.assertLogs(level="WARNING") as logs:
      self.assertIsNone(records.read_manifest(folder))
    self.assertRegex(logs.output[0], "MANIFEST.json .*: remaking it")

  def test_json(self):
    path = epath.Path(self.create_tempdir().full_path) / "a.json"
    self.assertIsNone(records.read_json(path))
    records.write_json(path, {"b": [1, "\u2028"]})
    self.assertEqual(records.read_json(path), {"b": [1, "\u2028"]})
    for data in (b"[" * 99999, b"{", b"\xff", b"NaN"):
      path.write_bytes(data)
      with self.assertLogs(level="WARNING"):
        self.assertIsNone(records.read_json(path))

  @parameterized.parameters(
    b"[" * 99999, b"3", b'{"footer": 3}', b'{"footer": [1, 2]}', b"\xff", b"NaN"
  )
  def test_footer(self, data):
    path = epath.Path(self.create_tempdir().full_path) / "shard"
    path.write_bytes(b'{"a": 1}\n' + data + b"\n")
    self.assertFalse(records.is_complete(path))
    with self.assertRaisesRegex(records.CorruptShard, "not a footer; delete"):
      records.read_shard(path)


class ShardsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = epath.Path(self.create_tempdir().full_path) / "made"

  @parameterized.parameters((0, [0]), (1, [1]), (4, [2, 2]), (5, [2, 2, 1]))
  def test_of_at_most_so_many_rows(self, count, sizes):
    rows = [{"n": n} for n in range(count)]
    self.assertEqual(records.write_shards(self.folder, iter(rows), 2), count)
    shards = [
      records.read_shard(self.folder / records.shard_name(i, len(sizes)))
      for i in range(len(sizes))
    ]
    self.assertEqual([len(shard) for shard in shards], sizes)
    self.assertEqual([row for shard in shards for row in shard], rows)
    self.assertLen(list(self.folder.iterdir()), len(sizes))

  def test_a_shard_is_written_before_the_next_is_read(self):
    seen = []

    def rows():
      for n in range(5):
        seen.append(len(list(self.folder.glob("part-*"))))
        yield {"n": n}

    records.write_shards(self.folder, rows(), 2)
    self.assertEqual(seen, [0, 0, 1, 1, 2])


class AtomicTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = epath.Path(self.create_tempdir().full_path)
    self.path = self.folder / "shard.jsonl"

  def test_a_process_killed_before_the_rename_leaves_the_old_state(self):
    records.write_shard(self.path, [{"old": 1}])
    program = textwrap.dedent(
      """
      import os, signal, sys
      from rstar_jax.storage import records
      os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
      records.write_shard(sys.argv[1], [{"new": 2}])
      """
    )
    killed = subprocess.run(
      [sys.executable, "-c", program, str(self.path)],
      env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
      capture_output=True,
    )
    self.assertEqual(killed.returncode, -signal.SIGKILL, killed.stderr)
    self.assertEqual(records.read_shard(self.path), [{"old": 1}])
    self.assertLen(list(self.folder.iterdir()), 2)  # It left a temporary.
    records.write_manifest(self.folder, {})
    self.assertCountEqual(
      [entry.name for entry in self.folder.iterdir()],
      ["shard.jsonl", records.MANIFEST],
    )

  def test_an_exception_leaves_the_old_state_and_no_temporary(self):
    records.write_json(self.path, {"old": 1})
    with mock.patch.object(os, "replace", side_effect=OSError("full")):
      with self.assertRaisesRegex(OSError, "full"):
        records.write_json(self.path, {"new": 2})
    self.assertEqual(json.loads(self.path.read_bytes()), {"old": 1})
    self.assertLen(list(self.folder.iterdir()), 1)

  def test_the_bytes_are_on_the_disk_before_the_rename(self):
    calls = mock.Mock()
    fsync, replace = os.fsync, os.replace
    calls.fsync.side_effect, calls.replace.side_effect = fsync, replace
    with (
      mock.patch.object(os, "fsync", calls.fsync),
      mock.patch.object(os, "replace", calls.replace),
    ):
      records.write_shard(self.path, [{"a": 1}])
    self.assertEqual(
      [call[0] for call in calls.mock_calls], ["fsync", "replace", "fsync"]
    )

  def test_json_is_sorted_and_ends_a_line(self):
    records.write_json(self.folder / "deep" / "x.json", {"b": (1,), "a": None})
    self.assertEqual(
      (self.folder / "deep" / "x.json").read_text(),
      '{\n  "a": null,\n  "b": [\n    1\n  ]\n}\n',
    )


class ManifestTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    # AtomicTest sees to fsync; hundreds of them are slow on a busy disk.
    self.enter_context(mock.patch.object(os, "fsync"))
    self.folder = epath.Path(self.create_tempdir().full_path) / "made"
    for index in range(3):
      name = records.shard_name(index, 3)
      records.write_shard(self.folder / "deep" / name, [{"index": index}])
    (self.folder / "empty.txt").write_bytes(b"")
    records.write_manifest(self.folder, {"round": 2, "rows": 3})

  def test_round_trip(self):
    manifest = records.read_manifest(self.folder)
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
    before = (self.folder / records.MANIFEST).read_bytes()
    records.write_manifest(self.folder, {"rows": 3, "round": 2})
    self.assertEqual((self.folder / records.MANIFEST).read_bytes(), before)

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
      records.write_manifest(self.folder, {})
    self.assertFalse((self.folder / names[1]).exists())
    listed = records.read_manifest(self.folder)["files"]
    self.assertNotIn("deep/" + late.name, listed)
    self.assertContainsSubset(["begun", "kept"], listed)
    self.assertNoCommonElements(names[:2], listed)
    # The folder is as finished without it.
    late.unlink()
    self.assertIsNotNone(records.read_manifest(self.folder))

  def test_a_folder_that_is_removed_is_not_taken_for_whole(self):
    with mock.patch.object(store, "is_settled", return_value=True):
      self.assertIsNotNone(records.read_manifest(self.folder))
    cache = self.folder.with_name(f"{layout.VERIFIED}{self.folder.name}.json")
    self.assertTrue(cache.exists())
    with mock.patch.object(store, "remove_all", side_effect=InterruptedError):
      with self.assertRaises(InterruptedError):
        records.remove(self.folder)
    self.assertIsNone(records.read_manifest(self.folder))
    records.remove(self.folder)
    self.assertFalse(self.folder.exists() or cache.exists())
    records.remove(self.folder)

  def test_named_files_only(self):
    records.write_manifest(self.folder, {}, files=["empty.txt"])
    self.assertEqual(
      list(records.read_manifest(self.folder)["files"]), ["empty.txt"]
    )
    with self.assertRaises(FileNotFoundError):
      records.write_manifest(self.folder, {}, files=["none.txt"])

  def test_own_keys_are_refused(self):
    with self.assertRaisesRegex(ValueError, "files"):
      records.write_manifest(self.folder, {"files": 1})

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
      self.assertIsNone(records.read_manifest(self.folder))
    self.assertIn(name, logs.output[0])

  def hashed(self) -> list[str]:
    """Reads the manifest; returns the names of the files that are read."""
    names = []

    def digest(file, version):
      names.append(file.name)
      return digest_of(file, version)

    digest_of = store.digest
    with mock.patch.object(store, "digest", digest):
      found = records.read_manifest(self.folder)
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
    before = (self.folder / records.MANIFEST).read_bytes()
    records.write_manifest(self.folder, {"rows": 3, "round": 2})
    self.assertEqual((self.folder / records.MANIFEST).read_bytes(), before)
    for damage in (b"", b"[", b"[]", b'{"empty.txt": [0]}', b"\xff"):
      verified.write_bytes(damage)
      self.assertNotEmpty(self.hashed())
    verified.unlink()
    self.assertLen(self.hashed(), 4)

  def test_what_is_written_again_is_hashed_again(self):
    self.age(60)
    self.hashed()
    name = f"deep/{records.shard_name(1, 3)}"
    data = (self.folder / name).read_bytes()
    (self.folder / name).write_bytes(data)
    self.assertEqual(self.hashed(), [records.shard_name(1, 3)])
    # Another write within the same tick of the clock would not be seen.
    self.assertEqual(self.hashed(), [records.shard_name(1, 3)])
    self.age(30)
    (self.folder / name).write_bytes(data.replace(b"1", b"2", 1))
    with self.assertLogs(level="WARNING"):
      self.assertIsNone(records.read_manifest(self.folder))

  def test_a_folder_that_cannot_be_written_is_read(self):
    self.age(60)
    with mock.patch.object(store, "write", side_effect=PermissionError):
      self.assertLen(self.hashed(), 4)

  @parameterized.parameters(b"", b"{}", b"[]", b"\xff", b'{"sha256": 1}')
  def test_a_damaged_manifest(self, data):
    (self.folder / records.MANIFEST).write_bytes(data)
    with self.assertLogs(level="WARNING"):
      self.assertIsNone(records.read_manifest(self.folder))

  def test_an_edited_manifest(self):
    path = self.folder / records.MANIFEST
    path.write_text(path.read_text().replace('"round": 2', '"round": 3'))
    with self.assertLogs(level="WARNING") as logs:
      self.assertIsNone(records.read_manifest(self.folder))
    self.assertIn("has changed", logs.output[0])

  def test_no_manifest_is_no_warning(self):
    with self.assertNoLogs(level="WARNING"):
      self.assertIsNone(records.read_manifest(self.folder / "deep"))


if __name__ == "__main__":
  absltest.main()
