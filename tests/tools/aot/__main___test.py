"""The command: sizes and the plan without a compiler, and errors."""

import json
import pathlib
import subprocess
import sys

from absl.testing import absltest

import rstar_jax
from configs import tiny
from rstar_jax.hf import folders
from rstar_jax.tools.aot import __main__ as aot

_ROOT = pathlib.Path(rstar_jax.__file__).parents[1]


class CommandTest(absltest.TestCase):
  def run_command(self, *arguments):
    return subprocess.run(
      [
        *(sys.executable, "-m", "rstar_jax.tools.aot"),
        "--config=configs/qwen2_5_math_7b.py",
        *arguments,
      ],
      cwd=_ROOT,
      capture_output=True,
      text=True,
    )

  def test_sizes_are_those_of_the_page(self):
    done = self.run_command("--topology=v5e:4x4", "--programs=")
    self.assertEqual(done.returncode, 0, done.stderr)
    (row,) = map(json.loads, done.stdout.splitlines())
    lines = (_ROOT / "docs/results/aot.jsonl").read_text().splitlines()
    old = next(
      each
      for each in map(json.loads, lines)
      if each["program"] == "search"
      and (each["model"], each["slice"]) == (row["model"], row["slice"])
    )
    for key in ("rows", "slots", "pages", "mesh", "hbm_chip_gib"):
      self.assertEqual(row[key], old[key])
    for key in ("weights", "pages"):
      self.assertEqual(row["held_gib"][key], old["held_gib"][key])
    self.assertTrue(old["fits"])
    # What only a compiler knows.
    self.assertLess(row["hbm_needed_gib"], old["hbm_needed_gib"])

  def test_plan(self):
    done = self.run_command("--topology=v5e:4x4,v6e:4x4", "--plan")
    self.assertEqual(done.returncode, 0, done.stderr)
    found = json.loads(done.stdout)
    self.assertLen(found["stages"], 16)
    self.assertEqual(set(found["chip_hours"]), {"v5e:4x4", "v6e:4x4"})
    hours = found["chip_hours"].values()
    page = (_ROOT / "docs/results/aot.md").read_text()
    for each in hours:
      self.assertIn(f"{each:,.0f}", page)

  def test_the_base_model_of_the_package(self):
    config = tiny.get_config()
    config.engine.pages = 512
    (row,) = aot.rows(config, ["v5e:2x2"], [])
    self.assertEqual(row["model"], str(folders.BASE_MODEL))
    # Two models of 0.9 million parameters in float32.
    self.assertAlmostEqual(
      row["held_gib"]["weights"] * 2**30, 8 * 0.9e6, delta=8 * 0.1e6
    )
    (name,) = aot.price(config, ["v5e:2x2"])["chip_hours"]
    self.assertEqual(name, "v5e:2x2")

  def test_errors(self):
    for arguments, message in (
      (["--topology=v9:2x2", "--programs="], "want one of v4"),
      (["--programs=expand"], "'expand'"),
      (
        ["--programs=", "--config.search_mesh.tensor=3"],
        "v5e:4x4: mesh",
      ),
    ):
      done = self.run_command(*arguments)
      self.assertNotEqual(done.returncode, 0)
      self.assertIn(message, done.stdout + done.stderr)
      self.assertNotIn("Traceback", done.stderr)


if __name__ == "__main__":
  absltest.main()
