"""The parser of synthetic problems, on problems answered by hand."""

from fractions import Fraction

from absl.testing import absltest, parameterized

from tests.data.synthetic import reading


class ReadingTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ("given", "Mila picks 17 apples. How many apples does Mila pick?", 17),
    (
      "product",
      "Mila fills 3 baskets with 14 apples each. "
      "How many apples does Mila pick?",
      42,
    ),
    (
      "from_the_end",  # Kara 20 / 2 = 10, Mila 10 + 13 = 23.
      "Mila picks 13 apples more than Kara. Kara picks half as many apples as "
      "Beren. Beren picks 20 apples. How many apples does Mila pick?",
      23,
    ),
    (
      "both",  # 3 * 11 = 33, and 11 + 33 = 44, less 5.
      "Mila picks 11 apples. Kara picks 3 times as many apples as Mila. "
      "Beren picks as many apples as Mila and Kara together. "
      "Noly picks 5 fewer apples than Beren. How many apples does Noly pick?",
      39,
    ),
    (
      "total",  # 30 + 12 + 20 = 62; Noly is nobody's.
      "Mila picks 30 apples. Kara picks 40% as many apples as Mila. "
      "Beren picks two thirds as many apples as Mila. "
      "Noly picks 7 times as many apples as Kara. "
      "How many apples do Kara, Mila and Beren pick in all?",
      62,
    ),
    (
      "difference",
      "Mila picks 30 apples. Kara picks three quarters as many apples as Mila. "
      "How many more apples does Mila pick than Kara?",
      Fraction(15, 2),
    ),
    (
      "fraction",  # 12 of 12 + 30.
      "Mila picks 30 apples. Kara picks two fifths as many apples as Mila. "
      "What fraction of the apples of Kara and Mila does Kara pick?",
      Fraction(2, 7),
    ),
    (
      "percentage",
      "Mila picks 30 apples. Kara picks 15 more apples than Mila. "
      "What Kara picks is how many percent of what Mila picks?",
      150,
    ),
    (
      "rate",  # Two sentences ask.
      "Mila picks 30 apples. Kara picks 15 more apples than Mila. "
      "Kara shares the apples equally among 6 friends. "
      "How many apples does each get?",
      Fraction(15, 2),
    ),
    (
      "made_up_words",  # 33 - 5.
      "Mila blidras 33 vexmos. Kara blidras 5 vexmos fewer than Mila. "
      "How many vexmos does Kara blidra?",
      28,
    ),
  )
  def test_people(self, question, answer):
    self.assertEqual(reading.solve(question, "synthetic/orchard"), answer)

  @parameterized.named_parameters(
    (
      "bus",  # 40, then 40 - 12 = 28, 28 / 4 = 7, 7 * 3 = 21, 21 + 14 = 35.
      "bus",
      "A bus leaves Arley with 40 people. In Wawick 12 people get off. "
      "In Doden only a quarter of the people stay on the bus. "
      "In Elport the people on the bus become 3 times as many. "
      "In Faham 14 people get on. "
      "How many people are on the bus after Faham?",
      35,
    ),
    (
      "ship",  # 50, then 25, then 25 - 11 = 14: 36 fewer than at first.
      "ship",
      "A ship sails from Arley with 50 crates. "
      "It leaves Wawick with 50% of its crates. "
      "The crew unloads 11 crates in Doden. "
      "How many more crates does it hold after Arley than after Doden?",
      36,
    ),
    (
      "prices",  # 40, 10, and 50 together.
      "prices",
      "In Wawick it costs 25% of the price in Arley. "
      "In Doden it costs as much as in Arley and Wawick together. "
      "A coat costs 40 euros in Arley. "
      "What do coats from Arley, Wawick and Doden cost together?",
      100,
    ),
  )
  def test_places(self, family, question, answer):
    self.assertEqual(reading.solve(question, f"synthetic/{family}"), answer)

  @parameterized.named_parameters(
    ("statement", "Mila likes apples a lot.", "'Mila likes apples a lot.' is"),
    ("twice", "Mila picks 3 apples.", "gives Mila a second time"),
    (
      "circle",
      "Kara picks 2 more apples than Beren. "
      "Beren picks 2 more apples than Kara.",
      "'Kara picks 2 more apples than Beren.' needs",
    ),
    ("nobody", "Kara picks 2 more apples than Beren.", "than Beren.' needs"),
    (
      "same",
      "Kara picks as many apples as Mila and Mila together.",
      "names Mila twice",
    ),
  )
  def test_errors_name_the_sentence(self, middle, message):
    question = f"Mila picks 17 apples. {middle} How many apples does Mila pick?"
    with self.assertRaisesRegex(ValueError, message):
      reading.solve(question, "synthetic/orchard")

  @parameterized.named_parameters(
    (
      "no_question",
      "orchard",
      "Mila picks 17 apples. Who is Mila?",
      "'Who is Mila\\?' is not a question of family 'orchard'",
    ),
    (
      "unknown_name",
      "orchard",
      "Mila picks 17 apples. How many apples does Kara pick?",
      "asks for \\['Kara'\\]",
    ),
    (
      "first_of_a_chain",
      "bus",
      "In Faham 14 people get on. How many people are on the bus after Faham?",
      "'In Faham 14 people get on.' refers",
    ),
    (
      "nothing",
      "orchard",
      "Mila picks 0 apples. Kara picks 3 apples. "
      "What Kara picks is how many percent of what Mila picks?",
      "a share of zero",
    ),
    ("family", "zoo", "", "source 'synthetic/zoo' must be .* orchard"),
  )
  def test_errors(self, family, question, message):
    with self.assertRaisesRegex(ValueError, message):
      reading.solve(question, f"synthetic/{family}")

  def test_another_source_is_refused(self):
    with self.assertRaisesRegex(ValueError, "must be 'synthetic/FAMILY'"):
      reading.solve("Mila picks 17 apples.", "gsm8k/orchard")


if __name__ == "__main__":
  absltest.main()
