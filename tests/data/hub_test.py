"""Tests of rstar_jax.data.hub, on local folders."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from absl.testing import absltest, parameterized
from etils import epath

from rstar_jax.config.schema import DataConfig
from rstar_jax.data import files, hub, problems
from rstar_jax.data.rows import Number, ProblemError

ROWS = [
  {"question": "Q?", "answer": "so\n#### 1,234", "level": 3, "more": [1]},
  {"question": "R?", "answer": "2", "level": None, "more": None},
]


def setUpModule():
  # The library reads these when it is imported, which is at first use.
  home = unittest.enterModuleContext(tempfile.TemporaryDirectory())
  where = {"HF_HOME": home, "HF_HUB_OFFLINE": "1"}
  unittest.enterModuleContext(mock.patch.dict(os.environ, where))
  # What it imports may have been loaded, and have read them, before.
  import datasets

  offline = mock.patch.object(datasets.config, "HF_HUB_OFFLINE", True)
  unittest.enterModuleContext(offline)


class HubTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "mine"
    self.folder.mkdir()

  def write(self, name: str = "train.jsonl") -> None:
    path = self.folder / name
    if path.suffix == ".parquet":
      pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
      path.write_text("\n".join(map(json.dumps, ROWS)))

  @parameterized.parameters(
    ("openai/gsm8k/main/train", ("openai/gsm8k", "main", "train")),
    ("meta-math/MetaMathQA/train", ("meta-math/MetaMathQA", "", "train")),
    ("/data/mine/test", ("/data/mine", "", "test")),
    ("./mine/train", ("./mine", "", "train")),
    ("../a/b/c/d/train", ("../a/b/c/d", "", "train")),
  )
  def test_names(self, name, expected):
    self.assertEqual(hub.parse(name), expected)

  @parameterized.parameters(
    "", "gsm8k", "gsm8k/train", "a/b/c/d/e", "a//b", "/"
  )
  def test_other_names(self, name):
    with self.assertRaisesRegex(
      ProblemError, "is neither 'hf:OWNER/NAME.*CONFIG.*/SPLIT' nor 'hf:FOLDER"
    ):
      hub.parse(name)

  @parameterized.parameters("train.jsonl", "train.parquet")
  def test_rows_are_as_in_a_json_file(self, name):
    self.write(name)
    source = f"hf:{self.folder}/train"
    rows = list(hub.hub_rows(source.removeprefix("hf:")))
    self.assertEqual(rows[0].value, ROWS[0] | {"level": "3", "more": ["1"]})
    self.assertIsInstance(rows[0].value["level"], Number)
    # To our own reader of such a file, as said.
    path = epath.Path(self.folder.parent / "same.jsonl")
    path.write_text("\n".join(map(json.dumps, ROWS)))
    for row, same in zip(rows, files.file_rows(path), strict=True):
      self.assertEqual(row.value, same.value)
    self.assertEqual([row.index for row in rows], [0, 1])
    self.assertEqual(rows[1].place, f"{source}[1]")
    read = problems.load_problems(DataConfig(source=source))
    self.assertEqual(
      [(p.id, p.question, p.answer, p.level) for p in read],
      [("mine/0", "Q?", "1234", 3), ("mine/1", "R?", "2", None)],
    )

  def test_a_text_that_is_not_utf_8(self):
    # Arrow writes what it is told is text, and the library reads in batches.
    offsets = np.array([0, 1, 3, 4], np.int32).tobytes()
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"Q\xff\xfeR")]
    texts = pa.Array.from_buffers(pa.string(), 3, buffers)
    table = pa.table({"question": texts, "answer": ["1", "2", "3"]})
    pa.parquet.write_table(table, self.folder / "train.parquet")
    rows = list(hub.hub_rows(f"{self.folder}/train"))
    self.assertEqual([row.index for row in rows], [0, 1, 2])
    self.assertEqual(
      [row.value and row.value["question"] for row in rows], ["Q", None, "R"]
    )
    self.assertEqual(rows[1].error, "is not UTF-8 (invalid start byte)")
    self.assertEqual(rows[1].place, f"hf:{self.folder}/train[1]")

  def test_what_is_not_there(self):
    self.write()
    broken = self.folder.parent / "broken"
    broken.mkdir()
    (broken / "train.jsonl").write_text('{"a": 1}\n{"a": ')
    for name, reason in (
      (f"{self.folder}/dev", r"dev.*\['train'\]"),
      (f"{self.folder}/none/train", "none"),
      (f"{broken}/train", "JSON parse error"),
      # datasets 4.0 and later ones say it in different words.
      ("owner/name/main/train", "Couldn't (reach|find) 'owner/name'"),
    ):
      with self.subTest(name):
        with self.assertRaisesRegex(ProblemError, f"hf:{name}'.*{reason}") as e:
          hub.hub_rows(name)
        self.assertNotIn("\n", str(e.exception))
        self.assertIn("(want 'hf:OWNER/NAME", str(e.exception))

  def test_without_a_network_nothing_is_tried_again(self):
    # A name that no server of names knows (RFC 6761).
    program = """
import sys, time
from rstar_jax.data import hub
slept = []
time.sleep = slept.append
for name in sys.argv[1:]:
  try:
    print(len(list(hub.hub_rows(name))))
  except hub.ProblemError as error:
    print(error)
import datasets
print(sum(slept), datasets.config.HF_HUB_OFFLINE)
"""
    self.write()
    without = ("https_proxy", "all_proxy", "hf_hub_offline")
    kept = {k: v for k, v in os.environ.items() if k.lower() not in without}
    done = subprocess.run(
      [sys.executable, "-c", program, "a/b/train", f"{self.folder}/train"],
      env=kept | {"HF_ENDPOINT": "https://hub.invalid"},
      capture_output=True,
      text=True,
      check=True,
    )
    said, rows, rest = done.stdout.splitlines()
    self.assertStartsWith(said, "source 'hf:a/b/train' is not in the cache")
    self.assertIn("hub.invalid cannot be reached (", said)
    self.assertEqual((rows, rest), ("2", "0 False"))

  def test_a_proxy_may_reach_the_hub(self):
    reach = mock.patch.object(hub.socket, "create_connection")
    proxy = {"https_proxy": "http://127.0.0.1:9"}
    with reach as asked, mock.patch.dict(os.environ, proxy):
      self.assertEqual(hub._no_network("https://hub.invalid"), "")
      asked.assert_not_called()

  def test_a_hub_of_ones_own(self):
    with socket.create_server(("127.0.0.1", 0)) as server:
      where = f"http://127.0.0.1:{server.getsockname()[1]}"
      self.assertEqual(hub._no_network(where), "")
    self.assertIn("127.0.0.1 cannot be reached (", hub._no_network(where))

  def test_a_config_that_is_not_there(self):
    self.write()
    real = hub.parse
    with mock.patch.object(
      hub, "parse", lambda name: real(name)._replace(config="main")
    ):
      with self.assertRaisesRegex(ProblemError, r"'main'.*\['default'\]"):
        hub.hub_rows(f"{self.folder}/train")

  def test_without_the_library(self):
    with mock.patch.dict(sys.modules, {"datasets": None}):
      with self.assertRaisesRegex(
        ProblemError, r"^.*pip install 'rstar_jax\[hub\]'$"
      ):
        hub.hub_rows("openai/gsm8k/main/train")

  def test_loads_no_accelerator_stack(self):
    self.write()
    program = (
      "import sys; from rstar_jax.data import hub; "
      f"print(len(list(hub.hub_rows({str(self.folder)!r} + '/train'))), "
      "[m for m in ('jax', 'torch', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run(
      [sys.executable, "-c", program],
      capture_output=True,
      text=True,
      check=True,
    )
    self.assertEqual(done.stdout, "2 []\n")


if __name__ == "__main__":
  absltest.main()
