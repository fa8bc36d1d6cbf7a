"""What results.json takes from the manifests of a run."""

import json
import pathlib

from absl.testing import absltest

from rstar_jax.pipeline import results
from rstar_jax.storage import layout, manifests
from tests import tiny_run


class ResultsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.create_tempdir().full_path)
    source = tiny_run.write_problems(folder / "train.jsonl", {"two": "2"})
    config = tiny_run.make_config(source, source)
    self.context = tiny_run.make_context(config, folder / "run")

  def manifest(self, round_: int, name: str, **info) -> None:
    manifests.write(self.context.folder(round_, name), info, [])

  def test_nothing_is_finished(self):
    found = results.write(self.context)
    self.assertEqual((found["rows"], found["solved"], found["ppm"]), ([],) * 3)

  def test_trees_and_ppm_of_finished_rounds(self):
    trees = {"solved": 0.25, "levels": {}, "generated_tokens": 7}
    # As an older run wrote it; and as one does now.
    self.manifest(1, "trees", **trees)
    self.manifest(2, "trees", **trees, easy=1, medium=0, hard=3, retired=0)
    self.manifest(2, "ppm", kind="ppm", pairs=5)
    found = results.write(self.context)
    shared = {"share": 0.25, "levels": {}, "generated_tokens": 7}
    self.assertEqual(
      found["solved"],
      [
        {"round": 1, **shared},
        {"round": 2, **shared, "easy": 1, "medium": 0, "hard": 3},
      ],
    )
    self.assertEqual(found["ppm"], [{"round": 2, "kind": "ppm", "pairs": 5}])
    path = self.context.workdir / layout.RESULTS
    written = json.loads(path.read_text())
    self.assertEqual(written["solved"], found["solved"])

  def test_only_the_first_host_writes(self):
    self.context.host = type(self.context.host)(index=1, count=2)
    self.assertEqual(results.write(self.context), {})
    self.assertFalse((self.context.workdir / layout.RESULTS).exists())


if __name__ == "__main__":
  absltest.main()
