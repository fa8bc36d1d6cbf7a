"""Compressed files, whole and damaged."""

import gzip
import json
import pathlib

from absl.testing import absltest, parameterized
from etils import epath

from rstar_jax.config.schema import DataConfig
from rstar_jax.data import compressed, problems
from rstar_jax.data.rows import ProblemError
from rstar_jax.storage.records import zstd

PACK = {".gz": gzip.compress, ".zst": zstd.compress}
ROWS = [{"question": f"Q{i}?", "answer": str(i)} for i in range(40)]
TEXTS = {
  ".jsonl": "\n".join(map(json.dumps, ROWS)),
  ".json": json.dumps(ROWS),
  ".csv": "question,answer\n" + "\n".join(f"Q{i}?,{i}" for i in range(40)),
}


class CompressedTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  @parameterized.product(ending=list(TEXTS), packed=list(PACK))
  def test_a_compressed_file_is_read_as_the_file(self, ending, packed):
    found = []
    for name in (f"set{ending}", f"set{ending}{packed}"):
      data = TEXTS[ending].encode()
      data = PACK[packed](data) if name.endswith(packed) else data
      (self.folder / name).write_bytes(data)
      source = str(self.folder / name)
      found.append(problems.load_problems(DataConfig(source=source)))
    self.assertEqual(found[0], found[1])
    self.assertEqual((found[0][3].id, found[0][3].answer), ("set/3", "3"))

  @parameterized.product(
    packed=list(PACK), damage=["cut", "changed", "another kind"]
  )
  def test_a_damaged_file_is_named(self, packed, damage):
    data = PACK[packed](TEXTS[".jsonl"].encode())
    middle = len(data) // 2
    data = {
      "cut": data[:-9],
      "changed": data[:middle] + bytes([data[middle] ^ 255]) + data[-9:],
      "another kind": b"plain text",
    }[damage]
    path = self.folder / f"set.jsonl{packed}"
    path.write_bytes(data)
    with self.assertRaisesRegex(
      ProblemError, f"^{path} cannot be unpacked .*: copy it again$"
    ):
      problems.load_problems(DataConfig(source=str(path), on_error="skip"))

  def test_names(self):
    for name, bare in (
      ("a/set.jsonl.gz", "set.jsonl"),
      ("gs://b/set.csv.zst", "set.csv"),
      ("a.b.json", "a.b.json"),
      ("gz", "gz"),
    ):
      self.assertEqual(compressed.bare(name), bare)

  def test_what_a_reader_raises_itself_passes(self):
    path = epath.Path(self.folder / "a.gz")
    path.write_bytes(gzip.compress(b"x"))
    with self.assertRaisesRegex(KeyError, "mine"):
      with compressed.opened(path) as file:
        self.assertEqual(file.read(), b"x")
        raise KeyError("mine")


if __name__ == "__main__":
  absltest.main()
