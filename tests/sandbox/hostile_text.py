"""Programs with state across steps, and unusual text; see `hostile.py`."""

from tests.sandbox.hostile import cases

STATE = [
  *cases(
    "state",
    "ok",
    poisoned_print=(["import builtins; builtins.print = None", "1"], ""),
    poisoned_math=(["import math; math.pi = 3", "print(math.pi)"], "3\n"),
    generator=(
      ["g = (i for i in range(9))", "next(g)", "print(next(g))"],
      "1\n",
    ),
    aliasing=(["a = b = [1]", "a.append(2)", "print(b)"], "[1, 2]\n"),
    globals_of=(
      ["x = 1\ndef f(): return x", "x = 2", "print(f())"],
      "2\n",
    ),
    closures=(
      [
        "def m():\n  n = 0\n  def f():\n    nonlocal n\n    n += 1\n"
        "    return n\n  return f\nf = m()",
        "f()",
        "print(f())",
      ],
      "2\n",
    ),
    classes=(["class A: n = 1", "A.n += 1", "print(A().n)"], "2\n"),
    seed=(
      ["import random; random.seed(5)", "print(random.random())"],
      "0.6229016948897019\n",
    ),
    deleted=(["x = 1", "del x", "print('x' in globals())"], "False\n"),
    decimals=(
      [
        "import decimal; decimal.getcontext().prec = 3",
        "print(decimal.Decimal(1) / 3)",
      ],
      "0.333\n",
    ),
    limit=(
      [
        "import sys; sys.setrecursionlimit(77)",
        "print(sys.getrecursionlimit())",
      ],
      "77\n",
    ),
    saved_output=(["import sys; w = sys.stdout.write", "w('late')"], "late"),
    open_if=(
      ["if 1:\n  print('a')", "else:\n  print('b')", "print('c')"],
      "c\n",
    ),
    open_string=(["x = '''a", "b'''", "print(x)"], "a\nb\n"),
    open_bracket=(["x = [1,", "2]", "print(x)"], "[1, 2]\n"),
    decorated=(["def d(f): return 7\n@d", "def g(): pass", "print(g)"], "7\n"),
    empty_steps=(["", "# nothing", "print(1)"], "1\n"),
  ),
  *cases(
    "state",
    "error",
    earlier=["1 / 0", "print(1)"],
    name="print(leaked_from_another)",
    half="x = (1 +",
    twice=["x = 1", "x ="],
    indented=["x = 1", "  y = 2"],
  ),
]

UNICODE = [
  *cases(
    "unicode",
    "ok",
    emoji=("print('\U0001f600')", "\U0001f600\n"),
    names=("\u03c0 = 3; print(\u03c0)", "3\n"),
    wide=("\uff58 = 5; print(x)", "5\n"),
    right=("print('\u202e\u05d0')", "\u202e\u05d0\n"),
    combining=("print('e\u0301' == '\u00e9')", "False\n"),
    cookie=("# coding: latin-1\nprint('\u00e9')", "\u00e9\n"),
    carriage=("print(1)\r\nprint(2)\r\n", "1\n2\n"),
    feed=("\x0cprint(3)", "3\n"),
    long_line=(f"x = '{'a' * 10**5}'; print(len(x))", "100000\n"),
    many_lines=("x = 1\n" * 2000 + "print(x)", "1\n"),
    replaced=("print(b'\\xff'.decode(errors='replace'))", "\ufffd\n"),
  ),
  *cases(
    "unicode",
    "error",
    surrogate="print('\\ud800')",
    surrogate_source="x = '\ud800'",
    null="x = 1\0",
    null_in_string="x = '\0'",
    wrong_digit="x = \u00b2",
    quotes="print(\u201chello\u201d)",
    tabs="if 1:\n\tx = 1\n        y = 2",
    message="raise ValueError('\\ud800\\0')",
    digits="print(10**5000)",
    parsed="int('9' * 10**6)",
  ),
]

CASES = (
  *STATE,
  *UNICODE,
)
