r"""Conditions of answers: where they begin and end, and what they share."""

from absl.testing import absltest, parameterized

from rstar_jax.grading import conditions


class ConditionsTest(parameterized.TestCase):
  @parameterized.parameters(
    ("x + 1", [("x + 1", "")]),
    ("x^2 for all x", [("x^2", "forallx")]),
    (r"n \text{ for any } n > 1", [("n", "foranyn>1")]),
    ("f(x)=0, where x > 0, y > 0", [("f(x)=0", "wherex>0y>0")]),
    (
      r"f(x)=0 \text{ for all } x \text{ or } f(x)=x \text{ for all } x",
      [("f(x)=0", "forallx"), ("f(x)=x", "forallx")],
    ),
    ("W(a)=k for all a and k = 1", [("W(a)=k", "forallak=1")]),
    (
      r"2n \text{ if } n \text{ is odd, } n \text{ if } n \text{ is even}",
      [("2n", "ifnisodd"), ("n", "ifniseven")],
    ),
    (
      "0 for all even n, 1 otherwise",
      [("0", "forallevenn"), ("1", "otherwise")],
    ),
    ("where", [("where", "")]),
    ("foreign 2 wheres", [("foreign 2 wheres", "")]),
  )
  def test_split(self, text, expected):
    self.assertEqual(conditions.split(text), expected)

  @parameterized.parameters(
    ("forallx", ()),
    ("wherex>0", ("0", ">")),
    ("ifnisodd", ("odd",)),
    (r"c\ge0", ("0", r"\ge")),
    (r"forallx\in\mathbb{R}", ()),
  )
  def test_tokens(self, condition, expected):
    self.assertEqual(conditions.tokens(condition), expected)

  @parameterized.parameters(
    ("ifn>1", True),
    ("otherwise", True),
    ("forallx", False),
    ("wherex>1", False),
  )
  def test_is_case(self, condition, expected):
    self.assertEqual(conditions.is_case(condition), expected)

  @parameterized.parameters(
    ("foralln>1", "n>1"), ("wherex=0", "x=0"), ("ifx<2", "x<2"), ("x<2", "x<2")
  )
  def test_relation(self, condition, expected):
    self.assertEqual(conditions.relation(condition), expected)


if __name__ == "__main__":
  absltest.main()
