"""Tests of rstar_jax.storage.json_io."""

import json
import os
from unittest import mock

from absl.testing import absltest
from etils import epath

from rstar_jax.storage import json_io


class JsonTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = epath.Path(self.create_tempdir().full_path)
    self.path = self.folder / "a.json"

  def test_what_is_no_json_is_taken_as_missing(self):
    self.assertIsNone(json_io.read(self.path))
    json_io.write(self.path, {"b": [1, "\u2028"]})
    self.assertEqual(json_io.read(self.path), {"b": [1, "\u2028"]})
    for data in (b"[" * 99999, b"{", b"\xff", b"NaN"):
      self.path.write_bytes(data)
      with self.assertLogs(level="WARNING"):
        self.assertIsNone(json_io.read(self.path))

  def test_an_update_keeps_the_other_fields(self):
    json_io.update(self.path, {"a": {"x": 1}, "b": 2})
    json_io.update(self.path, {"a": {"y": 3}})
    self.assertEqual(json_io.read(self.path), {"a": {"y": 3}, "b": 2})

  def test_an_exception_leaves_the_old_state_and_no_temporary(self):
    json_io.write(self.path, {"old": 1})
    with mock.patch.object(os, "replace", side_effect=OSError("full")):
      with self.assertRaisesRegex(OSError, "full"):
        json_io.write(self.path, {"new": 2})
    self.assertEqual(json.loads(self.path.read_bytes()), {"old": 1})
    self.assertLen(list(self.folder.iterdir()), 1)

  def test_json_is_sorted_and_ends_a_line(self):
    json_io.write(self.folder / "deep" / "x.json", {"b": (1,), "a": None})
    self.assertEqual(
      (self.folder / "deep" / "x.json").read_text(),
      '{\n  "a": null,\n  "b": [\n    1\n  ]\n}\n',
    )


if __name__ == "__main__":
  absltest.main()
