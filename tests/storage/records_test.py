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
import tracemalloc
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar_jax.storage import layout, manifests, records

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

  @parameterized.parameters(
    b"[" * 99999, b"3", b'{"footer": 3}', b'{"footer": [1, 2]}', b"\xff", b"NaN"
  )
  def test_a_footer_that_is_none(self, data):
    self.path.write_bytes(b'{"a": 1}\n' + data + b"\n")
    self.assertFalse(records.is_complete(self.path))
    with self.assertRaisesRegex(records.CorruptShard, "not a footer; delete"):
      records.read_shard(self.path)

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
    manifests.write(self.folder, {})
    self.assertCountEqual(
      [entry.name for entry in self.folder.iterdir()],
      ["shard.jsonl", layout.MANIFEST],
    )

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


if __name__ == "__main__":
  absltest.main()
