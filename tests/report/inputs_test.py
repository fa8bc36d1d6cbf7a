"""Tests of how the report reads a workdir."""

import functools
import json
import operator
import pathlib

from absl.testing import absltest

from rstar_jax import outside
from rstar_jax.report import inputs, overview, trees
from tests.report import workdirs


class ReadTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "run"
    self.folder.mkdir()

  def test_reads_a_run(self):
    found = inputs.read(workdirs.write(self.folder))
    self.assertEqual(found["name"], "run")
    self.assertLen(found["metrics"], 4)
    self.assertEqual([each["round"] for each in found["rounds"]], [0, 1])
    self.assertEqual(
      [(row["set"], row["round"], row["id"]) for row in found["problems"]],
      [
        ("test", 1, "pears"),
        ("test", 1, "figs"),
        ("training", 1, "apples"),
        ("training", 1, workdirs.hostile().problem.id),
        ("test", 0, "pears"),
      ],
    )
    self.assertEqual(
      [row["solved"] for row in found["problems"]],
      [True, False, True, False, False],
    )
    self.assertEqual(
      [row["block"] for row in found["problems"]], [0, -1, 1, 2, -1]
    )
    pears, _, apples, bad, _ = found["problems"]
    self.assertEqual(pears["samples"], [1, 3])
    self.assertEqual((pears["greedy"], pears["search"]), ("equal", "equal"))
    self.assertEqual((apples["right"], apples["answers"]), (1, 2))
    self.assertEqual((apples["suspect"], bad["suspect"]), (False, True))
    self.assertEqual(bad["question"], outside.valid(workdirs.HOSTILE))
    tree = trees.decode(found["trees"][1])
    self.assertEqual(tree["chosen"], [7])
    self.assertEqual(
      tree["pairs"],
      [["step", 1, 2, 0.5], ["across", 1, 8, 0.5], ["final", 7, 9, 0.5]],
    )
    test = trees.decode(found["trees"][0])
    self.assertEqual((test["chosen"], test["pairs"]), ([7], []))
    self.assertEqual([each["problems"] for each in found["sets"]], [2, 2, 1])
    self.assertEqual(found["sets"][0]["dropped"], {"duplicate": 2, "error": 1})

  def test_an_empty_folder_is_a_run_that_has_just_begun(self):
    found = inputs.read(self.folder)
    self.assertEqual(found["problems"], [])
    self.assertEqual(found["results"]["rows"], [])

  def test_a_file_of_nonsense_is_left_out(self):
    (self.folder / "results.json").write_text("[" * 99999)
    (self.folder / "config.json").write_text("3")
    with self.assertLogs(level="WARNING") as logs:
      found = inputs.read(self.folder)
    self.assertEqual(found["results"]["rows"], [])
    self.assertRegex(
      logs.output[0], "results.json is nested too deeply: taken as"
    )

  def test_records_of_another_form_are_left_out(self):
    workdirs.write(self.folder)
    wanted = inputs.read(self.folder)
    self.assertNotEmpty(wanted["results"]["rows"])
    with (self.folder / "metrics.jsonl").open("a") as file:
      file.write('{"round_1_sft/loss": 2.0}\n{"step": true, "a/loss": 1}\n')
    path = self.folder / "results.json"
    results = json.loads(path.read_text())
    row = results["rows"][0]
    for name in ("round", "split", "method"):
      results["rows"].append(row | {name: []})
    path.write_text(json.dumps(results))
    found = inputs.read(self.folder)
    self.assertEqual(found["results"], wanted["results"])
    self.assertEqual(found["metrics"], wanted["metrics"])
    path.write_text('{"rows": null, "config": []}')
    found = inputs.read(self.folder)["results"]
    self.assertEqual((found["rows"], found["config"]), ([], {}))

  def test_values_of_another_form_in_the_results_are_left_out(self):
    """The others are shown, whichever one is odd, and however."""
    text = (workdirs.write(self.folder) / "results.json").read_text()
    folder = self.folder / "alone"  # Without the other records, for speed.
    folder.mkdir()
    path = folder / "results.json"
    path.write_text(text)
    results = json.loads(text)
    whole = overview.overview(inputs.read(folder))

    def within(value, at=()):
      """Yields the places of all values."""
      for key in value if isinstance(value, dict) else range(len(value)):
        yield (*at, key)
        if isinstance(value[key], dict | list):
          yield from within(value[key], (*at, key))

    for name in ("rows", "solved", "ppm"):
      for place in within(results[name]):
        for odd in ({}, {"a": {"b": 1}}, [1], "x", None, True):
          changed = json.loads(text)
          *parts, last = name, *place
          functools.reduce(operator.getitem, parts, changed)[last] = odd
          path.write_text(json.dumps(changed))
          found = overview.overview(inputs.read(folder))
          for other in ("accuracy", "solved", "ppm"):
            if other != {"rows": "accuracy"}.get(name, name):
              self.assertEqual(found[other], whole[other])
          for each in found["solved"]:
            for level in each["levels"].values():
              self.assertLess(level["solved"], level["problems"])
          for each in found["ppm"]:
            self.assertIn(each["kind"], ("ppm", "x"))
          for each in found["accuracy"]:
            for line in each["lines"]:
              for point in line["points"]:
                self.assertBetween(point["accuracy"], 0, 1)
    # Of a row with an odd field, the others are kept.
    results["ppm"][0] |= {"held_out_step": 3, "kind": {}}
    results["solved"][0]["levels"]["3"] = "none"
    results["rows"][1] |= {"n": {}, "low": "0"}
    path.write_text(json.dumps(results))
    found = overview.overview(inputs.read(folder))
    self.assertEqual(found["solved"], whole["solved"])
    self.assertEqual(
      found["ppm"],
      [whole["ppm"][0] | {"step": {"accuracy": None, "pairs": None}}],
    )
    *_, point = found["accuracy"][0]["lines"][0]["points"]
    self.assertEqual((point["n"], point["low"], point["high"]), (None, None, 1))

  def test_a_metric_that_is_no_number_is_none(self):
    (self.folder / "metrics.jsonl").write_text(
      '{"step": 1, "a/seconds": "x", "b/seconds": [], "c/seconds": 2.5}\n'
    )
    self.assertEqual(
      inputs.read(self.folder)["metrics"],
      [{"step": 1, "a/seconds": None, "b/seconds": None, "c/seconds": 2.5}],
    )

  def test_no_folder(self):
    with self.assertRaisesRegex(ValueError, "is not a folder"):
      inputs.read(self.folder / "nowhere")


if __name__ == "__main__":
  absltest.main()
