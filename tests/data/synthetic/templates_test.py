"""Each family states the relations unambiguously."""

import collections
import string
from fractions import Fraction

from absl.testing import absltest, parameterized

from rstar_jax.data.synthetic import templates
from tests.data.synthetic import reading

# Each relation with n = 4, m = 3, y = 60 and z = 20, by hand.
VALUES = {
  "given": 4,
  "product": 12,
  "more": 64,
  "fewer": 56,
  "times": 240,
  "part": 45,
  "percent": Fraction(12, 5),
  "both": 80,
}
# Each question with x = 60, y = 20, z = 4 and n = 4.
ANSWERS = {
  "one": 60,
  "total": 84,
  "difference": 40,
  "fraction": Fraction(3, 4),
  "percentage": 300,
  "rate": 15,
}
WORDS = {
  "x": "Xara",
  "y": "Yara",
  "z": "Zara",
  "n": 4,
  "m": 3,
  "part": "three quarters",
  "names": "Xara, Yara and Zara",
}


def fields(template: str) -> set[str]:
  return {field for _, field, _, _ in string.Formatter().parse(template)} - {
    None
  }


def given(family: templates.Family, name: str, n: int) -> str:
  return family.says["given"][0].format(x=name, n=n)


class FamiliesTest(parameterized.TestCase):
  def test_groups(self):
    groups = collections.Counter(each.group for each in templates.FAMILIES)
    self.assertEqual(groups, {"train": 12, "validation": 1, "test": 4})
    names = {each.name for each in templates.FAMILIES}
    self.assertLen(names, len(templates.FAMILIES))
    # Both kinds of text are trained on and tested on.
    for group in ("train", "test"):
      kinds = {each.chain for each in templates.FAMILIES if each.group == group}
      self.assertEqual(kinds, {False, True})

  @parameterized.named_parameters((f.name, f) for f in templates.FAMILIES)
  def test_sentences_mean_their_relation(self, family):
    self.assertLessEqual(family.says.keys(), VALUES.keys())
    self.assertIn("given", family.says)
    asked = family.asks["one"][0].format(x="Xara")
    for relation, options in family.says.items():
      for template in options:
        with self.subTest(template):
          said = template.format(**WORDS)
          known = []
          if relation not in ("given", "product"):
            known = [given(family, "Yara", 60)]
            if relation == "both":
              known.append(given(family, "Zara", 20))
          text = " ".join([*known, said, asked])
          answer = reading.solve(text, f"synthetic/{family.name}")
          self.assertEqual(answer, VALUES[relation])

  @parameterized.named_parameters((f.name, f) for f in templates.FAMILIES)
  def test_questions_ask_what_they_say(self, family):
    self.assertLessEqual(family.asks.keys(), ANSWERS.keys())
    known = [
      given(family, name, n)
      for name, n in (("Xara", 60), ("Yara", 20), ("Zara", 4))
    ]
    for kind, options in family.asks.items():
      for template in options:
        with self.subTest(template):
          text = " ".join([*known, template.format(**WORDS)])
          answer = reading.solve(text, f"synthetic/{family.name}")
          self.assertEqual(answer, ANSWERS[kind])

  @parameterized.named_parameters((f.name, f) for f in templates.FAMILIES)
  def test_only_a_chain_leaves_out_what_it_refers_to(self, family):
    for relation in family.says.keys() - {"given", "product"}:
      for template in family.says[relation]:
        self.assertEqual("y" in fields(template), not family.chain, template)


if __name__ == "__main__":
  absltest.main()
