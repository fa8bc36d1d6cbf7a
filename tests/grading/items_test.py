r"""Lists without brackets."""

from absl.testing import absltest, parameterized

from rstar_jax.grading import items


class ItemsTest(parameterized.TestCase):
  @parameterized.parameters(
    ("1", ["1"]),
    ("1, 2", ["1", "2"]),
    ("1; 2", ["1", "2"]),
    (r"1 \text{ or } 2", ["1", "2"]),
    ("1, 2 and 3", ["1", "2", "3"]),
    (r"4 \quad 6", ["4", "6"]),
    ("(1, 2), (3, 4)", ["(1, 2)", "(3, 4)"]),
    ("1,234", ["1234"]),
    ("x=58,500", ["x=58500"]),
    ("1 234 567", ["1234567"]),
    ("100, 200", ["100", "200"]),
    ("(100,200)", ["(100,200)"]),
    (r"k\pi, k \in \mathbb{Z}", [r"k\pi"]),
    ("Alice and Bob", ["Alice and Bob"]),
    ("No, there are none", ["No, there are none"]),
    ("red, blue", ["red", "blue"]),
    (r"\pm 3", ["3", "-3"]),
    (r"2\pm\sqrt{3}", [r"2+\sqrt{3}", r"2-\sqrt{3}"]),
    (r"(0, \pm 2)", ["(0, 2)", "(0, - 2)"]),
    (r"1\pm x\mp y", ["1+ x- y", "1- x+ y"]),
    ("(1, 2", ["(1, 2"]),
  )
  def test_split(self, text, expected):
    found = [" ".join(each.split()) for each in items.split(text)]
    self.assertEqual(
      [each.replace("- ", "-").replace("+ ", "+") for each in found],
      [each.replace("- ", "-").replace("+ ", "+") for each in expected],
    )

  def test_many_signs_stay(self):
    self.assertLen(items.signs(r"\pm 1 \pm 2"), 4)
    text = r"\pm 1" * 7
    self.assertEqual(items.signs(text), [text])


if __name__ == "__main__":
  absltest.main()
