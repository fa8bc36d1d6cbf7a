"""The command: sizes and the plan without a compiler, and errors."""

import json
import pathlib
import subprocess
import sys

from absl.testing import absltest

import rstar_jax
from rstar_jax.tools.aot import __main__ as command


class ModelTest(absltest.TestCase):
  def test_published(self):
    found = command.model_config("Qwen/Qwen2.5-Math-1.5B", "bfloat16")
    self.assertEqual(found.num_layers, 28)
    self.assertEqual((found.dtype, found.param_dtype), ("bfloat16",) * 2)

  def test_folder(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    fields = {
      "model_type": "qwen2",
      "vocab_size": 512,
      "hidden_size": 64,
      "intermediate_size": 96,
      "num_hidden_layers": 3,
      "num_attention_heads": 4,
      "num_key_value_heads": 2,
      "max_position_embeddings": 128,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    found = command.model_config(str(folder), "float32")
    self.assertEqual((found.num_layers, found.head_dim), (3, 16))

  def test_neither(self):
    with self.assertRaisesRegex(ValueError, "'nobody/nothing' is no folder"):
      command.model_config("nobody/nothing", "float32")


class CommandTest(absltest.TestCase):
  def run_command(self, *arguments):
    return subprocess.run(
      [
        *(sys.executable, "-m", "rstar_jax.tools.aot"),
        "--config=configs/qwen2_5_math_7b.py",
        *arguments,
      ],
      cwd=pathlib.Path(rstar_jax.__file__).parents[1],
      capture_output=True,
      text=True,
    )

  def test_sizes_are_those_of_the_page(self):
    done = self.run_command("--topology=v5e:4x4", "--programs=sizes")
    self.assertEqual(done.returncode, 0, done.stderr)
    page = pathlib.Path(rstar_jax.__file__).parents[1] / "docs/results"
    recorded = [
      json.loads(line) for line in (page / "aot.jsonl").read_text().splitlines()
    ]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    self.assertEqual([row["stage"] for row in found], ["rollout", "evaluation"])
    for row, old in zip(found, recorded, strict=False):
      self.assertEqual(row, {key: old[key] for key in row})

  def test_the_plan_is_that_of_the_page(self):
    done = self.run_command(
      "--topology=v5e:4x4,v5p:2x2x4,v6e:4x4,v4:2x2x4",
      *("--path=1024", "--programs=", "--plan"),
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    (line,) = done.stdout.splitlines()
    self.assertEqual(
      json.loads(line)["chip_hours"],
      {
        "v5e:4x4": 36290,
        "v5p:2x2x4": 14800,
        "v6e:4x4": 13860,
        "v4:2x2x4": 25280,
      },
    )

  def test_errors_are_one_line(self):
    for arguments, message in (
      (("--topology=v5e:1x1", "--programs=sizes"), "v5e:1x1: mesh .*'tensor'"),
      (("--plan", "--path=9999"), "v5e:4x4: a path of 9999 tokens"),
      (("--topology=v9:1x1",), "topology 'v9:1x1': want one of v4, v5e"),
      (("--layers=0,1",), "--layers=0,1: want two, such as 1,2"),
      (("--programs=sizes,fly",), r"--programs: \['fly'\] are none of"),
    ):
      with self.subTest(arguments):
        done = self.run_command(*arguments)
        self.assertNotEqual(done.returncode, 0)
        self.assertEmpty(done.stdout)
        self.assertNotIn("Traceback", done.stderr)
        self.assertRegex(done.stderr, message)


if __name__ == "__main__":
  absltest.main()
