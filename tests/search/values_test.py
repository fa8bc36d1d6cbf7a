"""Values of partial solutions: each is scored once."""

import numpy as np
from absl.testing import absltest

from rstar_jax import testing
from rstar_jax.search import values

A, B, C = ("a", "b"), ("a", "c"), ("a",)


class ValuesTest(absltest.TestCase):
  def test_asks_once_and_gives_to_all(self):
    turns = []

    def score(questions, prefixes, steps):
      turns.append([*zip(questions, prefixes, map(tuple, steps), strict=True)])
      return testing.score_by_hash(questions, prefixes, steps)

    wanted = [
      each
      for nodes in (A, B)
      for each in values.partials_of("q", nodes, "mean")
    ]
    found = values.values_of(score, wanted)
    # What a step comes after has been read; siblings come together.
    expected = [[("q", (), ("a",))], [("q", ("a",), ("b", "c"))]]
    self.assertEqual(turns, expected)
    # The same in a search.
    searched = values.values_in_search(wanted)
    answer, turns = None, []
    with self.assertRaises(StopIteration) as end:
      while True:
        requests = searched.send(answer)
        answer = score(*zip(*(each.args for each in requests), strict=True))
    self.assertEqual(turns, expected)
    self.assertEqual(end.exception.value, found)
    alone = [
      testing.score_by_hash(["q"], [nodes[:-1]], [nodes[-1:]])[0][0]
      for nodes in (C, A)
    ]
    for how, expected in (
      ("last", alone[1]),
      ("mean", np.mean(alone)),
      ("min", np.min(alone)),
    ):
      with self.subTest(how):
        value = values.trajectory_value(found, "q", A, how)
        self.assertAlmostEqual(value, expected)

  def test_of_the_last_value_no_other_is_wanted(self):
    self.assertEqual(values.partials_of("q", A, "last"), [("q", A)])


if __name__ == "__main__":
  absltest.main()
