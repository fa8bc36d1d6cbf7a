"""Names of metrics: those of earlier runs, and what dashboards rely on."""

from absl.testing import absltest

from rstar_jax.evaluation.methods import METHODS
from rstar_jax.storage import scalars


class ScalarsTest(absltest.TestCase):
  def test_trainings(self):
    self.assertEqual(scalars.training(1, "sft"), "round_1_sft")
    for round_, name in ((1, "sft"), (12, "reinforce")):
      prefix = scalars.training(round_, name)
      self.assertEqual(scalars.of_training(prefix), (round_, name))
    for other in ("eval", "round_1", "bootstrap_train", "round_x_sft"):
      self.assertIsNone(scalars.of_training(other))

  def test_lines_with_a_step(self):
    known = {"step": 3, "a/loss": 1.0}
    bad = [{}, *({"step": each} for each in (None, "3", 1.5, True, []))]
    self.assertEqual(list(scalars.stepped([*bad, known, *bad])), [known])

  def test_an_evaluation(self):
    rows = [
      {"split": "hf:a/b/test", "method": method, "accuracy": number / 10}
      for number, method in enumerate(METHODS)
    ]
    picks = [
      {"split": "synthetic:test", "ppm": [0.7, 0.6, 0.8], "chance": [0.5, 0, 1]}
    ]
    found = scalars.accuracies(rows, picks)
    self.assertEqual(
      found["hf_a_b_test/pass_at_1"], list(METHODS).index("policy") / 10
    )
    self.assertEqual(
      found["hf_a_b_test/search"], list(METHODS).index("mcts") / 10
    )
    self.assertEqual(found["synthetic_test/picks_ppm"], 0.7)
    self.assertNotIn("synthetic_test/picks_policy", found)
    self.assertLen(found, len(METHODS) + 2)
    # And back, the later line counting.
    named = {f"eval/{name}": value for name, value in found.items()}
    lines = [{"step": 3, **dict.fromkeys(named, 0.9)}, {"step": 3, **named}]
    known = [
      {"round": 3, **{k: row[k] for k in ("split", "method", "accuracy")}}
      for row in rows
    ]
    self.assertCountEqual(
      scalars.accuracies_in(lines, ["hf:a/b/test", "synthetic:test"]), known
    )

  def test_what_a_search_solved(self):
    levels = {"3": {"problems": 4, "solved": 1}}
    self.assertEqual(
      scalars.solved({"solved": 0.5, "levels": levels, "easy": 7}),
      {"solved": 0.5, "level_3/solved": 0.25},
    )


if __name__ == "__main__":
  absltest.main()
