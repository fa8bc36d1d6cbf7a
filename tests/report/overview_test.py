"""Tests of the numbers of the first page."""

from absl.testing import absltest

from rstar_jax.report import overview


class OverviewTest(absltest.TestCase):
  def test_lines_of_a_split(self):
    rows = [
      {"round": 0, "method": "policy", "split": "a", "accuracy": 0.25},
      {"round": 1, "method": "pass@k", "split": "a", "accuracy": 0.75},
      {"round": 1, "method": "policy", "split": "a", "accuracy": 0.5},
      {"round": 1, "method": "own", "split": "b", "accuracy": 0.5},
    ]
    a, b = overview.accuracy(rows)
    self.assertEqual((a["split"], b["split"]), ("a", "b"))
    self.assertEqual(
      [each["method"] for each in a["lines"]], ["policy", "pass@k"]
    )
    points = a["lines"][0]["points"]
    self.assertEqual([each["round"] for each in points], [0, 1])
    self.assertEqual([each["accuracy"] for each in points], [0.25, 0.5])
    # A method that has no name of its own is called as in the records.
    self.assertEqual(b["lines"][0]["name"], "own")

  def test_losses_of_a_resumed_training(self):
    rows = [
      {"step": 1, "round_2_ppm/loss": 3.0, "round_2_ppm/margin": 0.0},
      {"step": 3, "round_2_ppm/loss": 2.5},
      {"step": 2, "round_2_ppm/loss": 2.0},
      {"step": 3, "round_2_ppm/loss": 1.0},
      {"step": 3, "eval/loss": 1.0},
    ]
    (curve,) = overview.losses(rows)
    self.assertEqual((curve["round"], curve["kind"]), (2, "ppm"))
    self.assertEqual(curve["points"], [[1, 3.0], [2, 2.0], [3, 1.0]])

  def test_losses_on_held_out_problems(self):
    rows = [
      {"step": 1, "round_1_sft/loss": 3.0},
      {"step": 4, "round_1_sft/held_out_loss": 2.5},
      {"step": 2, "round_1_sft/held_out_loss": 9.0},
      {"step": 2, "round_1_sft/held_out_loss": 3.5},
      {"step": 2, "round_1_ppm/loss": 1.0},
    ]
    sft, ppm = overview.losses(rows)
    self.assertEqual(sft["points"], [[1, 3.0]])
    self.assertEqual(sft["held_out"], [[2, 3.5], [4, 2.5]])
    self.assertEqual(ppm["held_out"], [])

  def test_a_long_curve_is_thinned_and_keeps_its_end(self):
    rows = [{"step": i, "round_1_sft/loss": float(i)} for i in range(1001)]
    (curve,) = overview.losses(rows)
    self.assertLessEqual(len(curve["points"]), 201)
    self.assertEqual(curve["points"][0], [0, 0.0])
    self.assertEqual(curve["points"][-1], [1000, 1000.0])

  def test_seconds_count_up_and_begin_again(self):
    rows = [
      {
        "step": 2,
        "rollout/seconds": seconds,
        "rollout/device_idle_share": idle,
        "rollout/generated_tokens_per_second": 10.0,
        "rollout/compile_seconds": 4.0,
        "rollout/useful_slots": 2 * idle,
        "rollout/host_seconds": 0.001,
        "rollout/pages_used": 7 * seconds,
        "rollout/pages_dropped": 3,
      }
      # Two shards, then the stage was begun again.
      for seconds, idle in ((10.0, 0.1), (30.0, 0.2), (10.0, 0.6))
    ]
    rows += [{"step": 9, "round_2_sft/seconds": 5.0}]
    search, sft = overview.time_spent(rows)
    self.assertEqual((search["round"], search["stage"]), (2, "rollout"))
    self.assertEqual(search["seconds"], 40.0)
    self.assertAlmostEqual(search["idle"], 0.3)
    self.assertAlmostEqual(search["compiling"], (4.0 + 4.0) / 40.0)
    self.assertAlmostEqual(search["full"], 0.6)
    # Of 400 tokens.
    self.assertAlmostEqual(search["host"], 5.0)
    self.assertEqual((search["pages"], search["dropped"]), (70, 6))
    for name in ("compiling", "full", "host", "pages", "dropped"):
      self.assertIsNone(sft[name])
    self.assertAlmostEqual(search["rate"], 10.0)
    self.assertEqual((sft["round"], sft["stage"]), (2, "sft"))
    self.assertEqual((sft["seconds"], sft["idle"]), (5.0, None))

  def test_the_rate_of_a_training_is_that_of_its_updates(self):
    rows = [
      # 2 s at 10 tokens a second, 6 s at 30, then again 2 s at 10.
      {
        "step": 1,
        "round_1_sft/seconds": 2.0,
        "round_1_sft/tokens_per_second": 10,
      },
      {
        "step": 5,
        "round_1_sft/seconds": 8.0,
        "round_1_sft/tokens_per_second": 30,
      },
      {
        "step": 5,
        "round_1_sft/seconds": 2.0,
        "round_1_sft/tokens_per_second": 10,
      },
    ]
    (row,) = overview.time_spent(rows)
    self.assertEqual(row["seconds"], 10.0)
    self.assertAlmostEqual(row["rate"], (20 + 180 + 20) / 10)
    self.assertIsNone(row["idle"])

  def test_stages_are_in_the_order_of_a_round(self):
    rows = [
      {"step": 1, "eval/seconds": 1.0},
      {"step": 1, "round_1_orm/seconds": 1.0},
      {"step": 1, "round_1_ppm/seconds": 1.0},
      {"step": 1, "rollout/seconds": 1.0},
      {"step": 0, "eval/seconds": 1.0},
    ]
    found = overview.time_spent(rows)
    self.assertEqual(
      [(each["round"], each["stage"]) for each in found],
      [(0, "eval"), (1, "rollout"), (1, "ppm"), (1, "eval"), (1, "orm")],
    )
    self.assertEqual(found[-1]["name"], "Training the ORM")

  def test_reinforcement_is_in_turns_with_its_search(self):
    rows = [
      {"step": 1, "rollout/seconds": 9.0},
      {"step": 1, "round_1_reinforce/seconds": 8.0},
      {"step": 1, "rollout/seconds": 20.0},
    ]
    (row,) = overview.time_spent(rows)
    self.assertEqual((row["stage"], row["seconds"]), ("rollout", 20.0))

  def test_decisions_by_split_and_the_levels_of_the_newest(self):
    def row(split, ppm, levels):
      return {"split": split, "ppm": ppm, "levels": levels, "failures": {}}

    rounds = [
      {"round": 1, "decisions": [row("a", 0.5, ["old"]), row("b", 0.25, [])]},
      {"round": 2, "decisions": []},
      {"round": 3, "decisions": [row("a", 0.75, ["new"])]},
    ]
    a, b = overview.decisions(rounds)
    self.assertEqual((a["split"], a["levels"]), ("a", ["new"]))
    self.assertEqual(
      a["rounds"],
      [
        {"round": 1, "ppm": 0.5, "failures": {}},
        {"round": 3, "ppm": 0.75, "failures": {}},
      ],
    )
    self.assertEqual((b["split"], len(b["rounds"])), ("b", 1))

  def test_held_out_pairs(self):
    rows = [
      {"round": 1, "pairs": 7, "held_out_step": {"accuracy": 0.5, "pairs": 2}}
    ]
    self.assertEqual(
      overview.ppm(rows),
      [
        {
          "round": 1,
          "kind": "ppm",
          "pairs": 7,
          "step": {"accuracy": 0.5, "pairs": 2},
          "final": {"accuracy": None, "pairs": None},
        }
      ],
    )

  def test_unsolved_of_the_newest_round_that_tells(self):
    none = {"count": 0, "suspects": [], "rows": []}
    some = {"count": 40, "suspects": ["a"], "rows": [{"problem_id": "a"}]}
    rounds = [
      {"round": 1, "sft": {}, "unsolved": none},
      {"round": 2, "sft": {}, "unsolved": some},
      {"round": 3, "sft": None, "unsolved": none},
    ]
    self.assertEqual(
      overview.unsolved(rounds),
      {"round": 2, "count": 40, "suspects": 1, "rows": some["rows"]},
    )
    self.assertIsNone(overview.unsolved([]))

  def test_grader_of_data_that_others_made(self):
    counts = {"answers": 3, "right": 1, "wrong": 1, "undecided": 1}
    rounds = [
      {"round": 1, "sft": {"rows": 5}},
      {"round": 2, "sft": {**counts, "rows": 5}},
      {"round": 3, "sft": None},
    ]
    self.assertEqual(overview.grader(rounds), [{"round": 2, **counts}])

  def test_blocks_of_markdown(self):
    text = "### One\n\nTwo\nlines.\n\n| a | b |\n| - | - |\n| 1 | - |\n"
    self.assertEqual(
      overview.blocks(text),
      [
        {"heading": "One"},
        {"text": "Two lines."},
        {"head": ["a", "b"], "rows": [["1", "-"]]},
      ],
    )
    self.assertEqual(overview.blocks(""), [])


if __name__ == "__main__":
  absltest.main()
