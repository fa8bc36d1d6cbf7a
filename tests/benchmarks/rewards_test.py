"""Solutions as trees, and figures of reward models on them."""

import pathlib

import numpy as np
from absl.testing import absltest, parameterized

import rstar_jax as rj
from benchmarks import rewards
from rstar_jax.data.synthetic import generator
from rstar_jax.evaluation import decisions

SOLVED = generator.generate("test", 0)
FIRST, SECOND, *REST = SOLVED.steps
SLIP = FIRST.replace("\n<end_of_step>", " + 1\n<end_of_step>")


def row(*steps: str, verdict: str = "equal") -> dict:
  answer = None if verdict == "failed" else "1"
  return {"steps": list(steps), "answer": answer, "verdict": verdict}


def sampled() -> rewards.Samples:
  return rewards.Samples(
    SOLVED.problem,
    [
      row(FIRST, SECOND, *REST),
      row(SLIP, SECOND, verdict="different"),
      row(FIRST, SECOND, *REST),
      row(FIRST, "x = 1", verdict="failed"),
      row(SLIP, *REST, verdict="different"),
    ],
  )


def score(questions, prefixes, steps):
  """Values a path by its number of nodes, less 1 after a slip."""
  del questions
  return [
    np.array([len(p) / 10 + 0.1 - (SLIP in (*p, step)) for step in some])
    for p, some in zip(prefixes, steps, strict=True)
  ]


class SamplesTest(absltest.TestCase):
  def test_each_prefix_is_one_node(self):
    found = sampled()
    paths = {found.tree.prefix(node) for node in range(1, len(found.tree))}
    solutions = [SOLVED.steps, (SLIP, SECOND), (SLIP, *REST)]
    self.assertEqual(
      paths, {each[:n] for each in solutions for n in range(1, len(each) + 1)}
    )
    self.assertLen(found.tree, len(paths) + 1)
    ends = [found.tree.prefix(node) for node in found.ends]
    self.assertEqual(
      ends, [SOLVED.steps, (SLIP, SECOND), SOLVED.steps, (SLIP, *REST)]
    )
    self.assertEqual(found.right.tolist(), [True, False, True, False])

  def test_values_and_the_best(self):
    found = sampled()
    decisions.revalue([found.tree], score)
    for node in range(1, len(found.tree)):
      path = found.tree.prefix(node)
      self.assertAlmostEqual(
        found.tree.ppm[node], len(path) / 10 - (SLIP in path)
      )
    self.assertEqual((found.best("last"), found.best("min")), (1.0, 1.0))
    self.assertEqual(found.answers(), 1.0)
    found.tree.ppm[found.ends[1]] = 0.99
    # One right answer, which was given twice, and two wrong ones.
    self.assertEqual(found.answers(), 0.5)
    self.assertEqual((found.best("last"), found.best("min")), (0.0, 1.0))
    # Three of highest value, of which two are right.
    found.tree.ppm[found.ends[0]] = 0.99
    self.assertAlmostEqual(found.best("last"), 2 / 3)

  def test_nothing_was_answered(self):
    found = rewards.Samples(SOLVED.problem, [row(FIRST, verdict="failed")])
    self.assertLen(found.tree, 1)
    decisions.revalue([found.tree], score)
    self.assertEqual(found.best("last"), 0.0)
    self.assertIsNone(found.answers())


class FiguresTest(parameterized.TestCase):
  def test_of_a_perfect_model(self):
    found = sampled()
    decisions.revalue([found.tree], score)
    figures = rewards.figures([found])
    (id_,) = figures["across"]
    self.assertEqual(id_, SOLVED.problem.id)
    for name in ("ppm", "pairs", "across", "answers", "best"):
      self.assertEqual(figures[name], {id_: 1.0}, name)
    self.assertEqual(figures["saturated"], {id_: 0.0})

  def test_differences_are_paired(self):
    models = [{"best": {"a": 0.0, "b": 1.0}}, {"best": {"a": 1.0, "b": 1.0}}]
    self.assertEqual(rewards.line(models)["best"][0], 0.75)
    self.assertEqual(rewards.line(models[:1])["best"], [0.5, 0.0, 1.0])
    # A model less the one in its place, whatever the order of problems.
    others = [{"best": {"b": 0.75, "a": -0.25}}, {"best": {"b": 0.5, "a": 0.5}}]
    found = rewards.less(models, others)["best"]
    self.assertEqual(found, [0.375, 0.25, 0.5])

  def test_intervals_are_over_models_too(self):
    ids = [f"{i}" for i in range(40)]
    models = [
      {"best": dict.fromkeys(ids, right)} for right in (0.0, 0.25, 0.75, 1.0)
    ]
    mean, low, high = rewards.line(models)["best"]
    self.assertEqual(mean, 0.5)
    self.assertBetween(low, 0.0, 0.2)
    self.assertBetween(high, 0.8, 1.0)

  def test_problems_that_all_models_know(self):
    models = [
      {"ppm": {"a": 1.0, "b": 0.0}, "across": {}},
      {"ppm": {"b": 0.5}, "across": {"a": 1.0}},
    ]
    found = rewards.line(models)
    self.assertEqual(list(found), ["ppm"])
    self.assertEqual(found["ppm"][0], 0.25)

  def test_what_was_made_is_not_made_again(self):
    file = pathlib.Path(self.create_tempdir().full_path) / "new" / "figures"

    def fails():
      raise KeyboardInterrupt

    with self.assertRaises(KeyboardInterrupt):
      rewards.kept(file, fails)
    made = {"items": 3, "figures": {"best": {"a": 0.1}}}
    self.assertEqual(rewards.kept(file, lambda: made), made)
    self.assertEqual(rewards.kept(file, fails), made)

  def test_table(self):
    lines = [
      {"way": "ppm", "n": 3, "models": 2, "best": [0.5, 0.25, 0.75]},
      {
        **{"way": "orm", "n": 3, "models": 2, "best": [0.25, 0.0, 0.5]},
        "less ppm": {"best": [-0.25, -0.5, 0.01]},
      },
    ]
    head, _, *rows = rewards.table(lines)
    at = [each.strip() for each in head.split("|")].index("best")
    cells = [[each.strip() for each in row.split("|")] for row in rows]
    self.assertEqual(
      [(each[1], each[at]) for each in cells],
      [
        ("ppm, n=3, models=2", "50 [25, 75]"),
        ("orm, n=3, models=2", "25 [0, 50]"),
        ("less ppm", "-25 [-50, +1]"),
      ],
    )
    self.assertEqual(cells[0][at - 1], "-")

  @parameterized.parameters(
    ("ppm", "ppm", False, False, "tanh"),
    ("ppm_across_logit", "ppm", True, False, "logit"),
    ("orm_balanced", "orm", False, True, "tanh"),
  )
  def test_ways(self, way, kind, across, balanced, head):
    config = rewards.config_of(rj.Config(), way, 7)
    self.assertEqual(
      (config.reward, config.extract.pairs_across, config.reward_balanced),
      (kind, across, balanced),
    )
    self.assertEqual((config.ppm_head, config.ppm.updates), (head, 7))

  def test_no_such_way(self):
    for way in ("prm", "ppm_other"):
      with self.assertRaisesRegex(ValueError, "prm|no such way"):
        rewards.config_of(rj.Config(), way, 7)


if __name__ == "__main__":
  absltest.main()
