"""The table of families in docs/your_model.md: each cell is a test."""

import re

from absl.testing import absltest

from rstar_jax.hf.families import FAMILIES
from rstar_jax.hf.published import MODELS
from tests.docs.reading import ROOT
from tests.hf import folders_golden_test, saving_test
from tests.parity import cases
from tests.training import sft_families_test

PAGE = ROOT / "docs" / "your_model.md"
_ROW = re.compile(r"^\| `(\w+)` \|(.*)\|$", re.MULTILINE)
_LINK = re.compile(r"\[(.*?)\]\((.*?)\)")


def table() -> dict[str, dict[str, str]]:
  """Returns the cells of each family, by the heads of their columns."""
  _, _, after = PAGE.read_text().partition("| `model_type` | import |")
  head, _, rows = after.partition("\n\n")[0].partition("\n")
  names = ["import", *(each.strip() for each in head.split("|")[:-1])]
  return {
    family: dict(
      zip(names, (each.strip() for each in cells.split("|")), strict=True)
    )
    for family, cells in _ROW.findall(rows)
  }


class FamiliesTest(absltest.TestCase):
  def test_every_family_is_a_row(self):
    self.assertEqual(set(table()), set(FAMILIES))
    self.assertEqual(set(cases.FAMILIES), set(FAMILIES))

  def test_each_cell_is_a_test(self):
    # Not names of this module, which would run them.
    golden = folders_golden_test.GoldenTest
    trained = sft_families_test.FamiliesTest
    for family, cells in table().items():
      case = cases.FAMILIES[family]
      tests = {
        "import": hasattr(golden, f"test_imported_{case}"),
        "export": hasattr(saving_test.SavingTest, f"test_exported_{case}"),
        "decode": hasattr(golden, f"test_decoded_{family}"),
        "train": hasattr(trained, f"test_trained_{family}"),
        "sharded": hasattr(trained, f"test_sharded_{family}"),
      }
      self.assertEqual({*cells}, {*tests, "compiled"})
      for name, runs in tests.items():
        with self.subTest(f"{family}: {name}"):
          self.assertEqual(cells[name], "yes" if runs else "")

  def test_what_was_compiled_is_in_the_report(self):
    """All published sizes that have a row there, and no others."""
    report = (PAGE.parent / "results" / "aot.md").read_text()
    found = {
      name: family
      for family, cells in table().items()
      for name, _ in _LINK.findall(cells["compiled"])
    }
    reported = {
      name: fields["model_type"]
      for model, fields in MODELS.items()
      if f"| {(name := model.partition('/')[2])} |" in report
    }
    self.assertEqual(found, reported)
    self.assertGreater(len(found), 3)


if __name__ == "__main__":
  absltest.main()
