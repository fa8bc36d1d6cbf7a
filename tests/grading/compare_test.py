r"""Answers compared part by part, with a substitute for algebra."""

from absl.testing import absltest, parameterized

from rstar_jax.grading import compare, parsing


def _compare(one, two, unknown=None):
  """Compares with plain numbers only; all else is `unknown`."""

  def same(first, second):
    decided = compare.same_number(first, second)
    return unknown if decided is None else decided

  comparison = compare.Comparison(same, lambda *_: unknown)
  return comparison.equal(parsing.read(one), parsing.read(two))


class CompareTest(parameterized.TestCase):
  @parameterized.parameters(
    ("1, 2", "2, 1", True),
    ("1, 2", "1, 3", False),
    ("1, 1", "1", False),
    (r"\{1, 1, 2\}", r"\{1, 2\}", True),
    (r"\{1\}", "1", True),
    (r"\{\emptyset\}", r"\emptyset", False),
    ("(1, 2)", "(2, 1)", False),
    ("(1, 2)", "1, 2", True),
    ("(1, 2)", r"\{1, 2\}", False),
    ("(1, 2)", "[1, 2]", False),
    ("(1, 2, 3)", "[1, 2, 3]", True),
    ("1, 2", "[1, 2]", True),
    ("[0, 1]", r"\{0, 1\}", False),
    ("x=1, y=2", "(1, 2)", True),
    ("x=1, y=2", "y=2, x=1", True),
    ("x=1, y=2", "x=2, y=1", False),
    ("x=1, 2", "x=1, y=2", False),
    ("1<a<2, 3<b<4", "3<a<4, 1<b<2", False),
    ("a>0, b<0", "b<0, a>0", True),
    ("x>1, y<3", "1<x<3", False),
    (r"x \in (0,1), y \in (1,2)", r"x \in (1,2), y \in (0,1)", False),
    ("x>1, x<3", "1<x<3", True),
    ("(a,b)=(1,2)", "(b,a)=(1,2)", False),
    ("a:b=1:2", "b:a=1:2", False),
    ("1 if -1<x<0, 2 if 0<x<1", "2 if -1<x<0, 1 if 0<x<1", False),
    ("f(x)=1 if x>0, 0 if x<0", "1 if x>0, 0 if x<0", True),
    ("x_1=1, x_2=2", "x=2 or x=1", True),
    ("x_1=1, x_2=2", "x=1, x=3", False),
    ("x_1=1, x_2=2", "y=1, y=2", False),
    (r"x=1, y=2", r"x=1 \land y=2", True),
    (r"k\pi (k \in \mathbb{Z})", r"k\pi", True),
    (r"(1, 2)", r"(x \in \mathbb{Z})", False),
    ("(x,y)=(1,2)", "x=1, y=2", True),
    ("(y, x) = (2, 1)", "x=1, y=2", True),
    ("(x,y)=(2,1)", "x=1, y=2", False),
    ("(a,b)=(1,2)", "x=1, y=2", False),
    ("(x,y,z)=(1,2,3)", "x=1, y=2", False),
    ("x_1=2, x_2=3", "3, 2", True),
    ("x=5", "y=5", False),
    ("x_1=5", "x_2=5", False),
    ("x_{10}=5", "x_{10}=5.0", True),
    ("area=5", "S_{ABC}=5", False),
    ("The number of apples = 5", "apples = 5", True),
    ("y=2", "f(x)=2", True),
    (r"[0,1]\cup[1,2]", "[0,2]", True),
    (r"(0,1)\cup(1,2)", "(0,2)", False),
    (r"(0,1)\cup[1,2]", "(0,2]", True),
    ("x<0 or x>1", r"(1,\infty)\cup(-\infty,0)", True),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)", True),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "[[1,2],[3,4]]", True),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "[[1,3],[2,4]]", False),
    ("1:2", "2:4", True),
    ("1:2", "1/2", True),
    ("1:2", "0.5", False),
    ("3:30", "3:30 pm", True),
    ("14:05", "2:05 pm", True),
    ("3:30 am", "3:30 pm", False),
    ("B", "(B) 12", True),
    ("(B) 12", "12", True),
    ("(B) 12", "(B) 13", False),
    ("2 hours", "120 minutes", True),
    ("2 hours", "120", False),
    ("2s", "2 seconds", True),
    ("3m", "3", None),
    ("Yes", "Yes, it is", True),
    # Three letters may be a product, four are a word.
    ("abcd", "bcda", False),
    ("abc", "bca", None),
    ("xy", "yx", None),
    ("mnp", "pnm", None),
    ("xy", "pq", False),
    # These are words, or an order.
    ("saw", "was", False),
    ("no", "on", False),
    ("xxy", "yxx", False),
    ("HTT", "THT", False),
    (r"\text{TFT}", "TTF", False),
    ("HHT", "THH", False),
    ("BCA", "ABC", False),
    (r"\angle ABC", r"\angle BAC", False),
    (r"\angle ABC", r"\angle CBA", None),
    (r"\overline{AB}", "BA", None),
    ("AB", "Ba", False),
  )
  def test_decided(self, one, two, expected):
    self.assertEqual(_compare(one, two), expected)
    self.assertEqual(_compare(two, one), expected)

  def test_unknown_is_handed_on(self):
    # One part is not known: the whole is not, unless another part differs.
    self.assertIsNone(_compare("(1, x)", "(1, y)"))
    self.assertFalse(_compare("(1, x)", "(2, y)"))
    self.assertIsNone(_compare("1, x", "y, 1"))
    self.assertTrue(_compare("1, x", "y, 1", unknown=True))
    self.assertFalse(_compare("1, x", "y, 2"))
    self.assertIsNone(_compare(r"\{1, x\}", r"\{y, 1\}"))
    self.assertIsNone(_compare("y=2x+1", "2x-y+1=0"))

  @parameterized.parameters(
    ("10^{10^{9}}", "5", False),
    ("10^{10^{9}}", "10^{10^{8}}", False),
    ("10^{99999}", "10^{99998}", False),
    ("10^{10^{9}}", "9^{10^{9}}", None),
    ("2^{10}", "1024", None),
    ("1^{99999}", "1", None),
    ("1 2", "12", False),
  )
  def test_same_number(self, one, two, expected):
    self.assertEqual(compare.same_number(one, two), expected)
    self.assertEqual(compare.same_number(two, one), expected)


if __name__ == "__main__":
  absltest.main()
