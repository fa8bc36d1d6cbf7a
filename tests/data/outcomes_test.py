"""How searches ended: by hand, and as trees in memory say it."""

import pathlib

from absl.testing import absltest

from rstar_jax.config.schema import ExtractConfig
from rstar_jax.data import outcomes, trajectories
from rstar_jax.data.outcomes import Outcome
from rstar_jax.search.tree import RIGHT, UNKNOWN, WRONG
from rstar_jax.storage import records
from tests.data.trajectories_test import make_tree

_RIGHT = ("a", 1.0, "1", 1.0, RIGHT)
_WRONG = ("b", 0.0, "2", -1.0, WRONG)
_OPEN = ("c", 0.0, None, 0.0, RIGHT)


def trees():
  return [
    make_tree(_RIGHT, _OPEN, name="all", level=3),
    make_tree(_RIGHT, name="some", level=3),
    make_tree(_WRONG, ("d", 0.0, "3", 0.0, UNKNOWN), name="some", level=3),
    make_tree(_OPEN, name="no answer"),
    make_tree(_RIGHT, ("d", 0.0, "3", 0.0, UNKNOWN), name="unsure"),
  ]


class OutcomesTest(absltest.TestCase):
  def test_the_header_of_a_file_of_trees(self):
    rows = [tree.to_record() for tree in trees()]
    for number, row in enumerate(rows, 1):
      row["tokens"] = 10**number
    path = pathlib.Path(self.create_tempdir().full_path) / "shard"
    records.write_shard(path, rows, outcomes.header_of(rows))
    first, some, none, unsure = outcomes.of_file(path)
    self.assertEqual(first, Outcome("all", 3, 1, 0, 0, 10))
    self.assertEqual(some, Outcome("some", 3, 1, 1, 1, 1100))
    self.assertEqual((none.right, none.wrong, none.undecided), (0, 0, 0))
    self.assertEqual(
      [each.difficulty for each in (first, some, none, unsure)],
      ["easy", "medium", "hard", "easy"],
    )
    # Mastered is right in every tree, and not unsure of any.
    self.assertEqual(
      [each.mastered for each in (first, some, none, unsure)],
      [True, False, False, False],
    )
    # A file whose header says nothing is read.
    records.write_shard(path, rows)
    self.assertEqual(outcomes.of_file(path), [first, some, none, unsure])
    first.add(some)
    self.assertEqual(first, Outcome("all", 3, 2, 1, 1, 1110))

  def test_hardest_first(self):
    before = {
      "quick": Outcome("quick", 1, right=3, tokens=40),
      "alike": Outcome("alike", 1, right=1, tokens=44),
      "long": Outcome("long", 1, right=1, wrong=5, tokens=900),
      "unsolved": Outcome("unsolved", 1, wrong=1, tokens=30),
      "none": Outcome("none", 1, tokens=500),
      "elsewhere": Outcome("elsewhere", 1, tokens=9000),
      "silent": Outcome("silent", 1, tokens=0),
    }
    ids = ["alike", "silent", "unsolved", "quick", "new", "none", "long"]
    ids.append("newer")
    found = outcomes.hardest_first(ids, before)
    self.assertEqual(
      [ids[place] for place in found],
      ["new", "newer", "none", "unsolved", "silent", "long", "alike", "quick"],
    )
    # Problems alike stay as they are.
    found = outcomes.hardest_first(["quick", "alike"], before)
    self.assertEqual(found, [0, 1])
    self.assertEqual(outcomes.hardest_first(ids, {}), list(range(8)))

  def test_counts_are_those_of_the_trees_themselves(self):
    found = trees()
    header = outcomes.header_of([tree.to_record() for tree in found])
    counts = outcomes.counts(Outcome(*each) for each in header["problems"])
    _, stats = trajectories.sft_rows(found, ExtractConfig())
    self.assertEqual(counts.pop("tokens"), 0)
    self.assertEqual(counts, {name: stats[name] for name in counts})
    self.assertEqual(counts["levels"]["3"], {"problems": 2, "solved": 2})

  def test_counts_of_nothing(self):
    counts = outcomes.counts([])
    self.assertEqual((counts["problems"], counts["levels"]), (0, {}))


if __name__ == "__main__":
  absltest.main()
