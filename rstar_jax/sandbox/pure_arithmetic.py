"""Recognises pure arithmetic: code that can share a process with other code.

A fork takes about a millisecond, a line of arithmetic some microseconds, and
most programs that a small model writes are arithmetic. Code is *pure
arithmetic* if its syntax tree has only the nodes listed here: no import except
that of Fraction, no attribute, no definition, and no call except those of
Fraction and of a few pure builtins by their own names. Such code reaches only
the names that it assigns itself, so that a fresh namespace isolates it. It may
still loop, fail, or fill memory and output; the sandbox limits it like any
other program.

Runs inside the sandbox's processes: standard library only.
"""

import ast
import marshal
import re

# Called with numbers, texts and lists, these have no side effects.
_CALLS = frozenset(
  "Fraction abs bool divmod float int len list max min pow print range round "
  "set sorted str sum tuple".split()
)
_NODES = (
  *(ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.Pass),
  *(ast.If, ast.For, ast.While, ast.Break, ast.Continue),
  *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Constant),
  *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context),
  *(ast.Tuple, ast.List, ast.Set, ast.Slice, ast.JoinedStr),
  *(ast.FormattedValue, ast.Dict),
  *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
  ast.comprehension,
)
# Limits of what the worker itself compiles. Within them it takes at most some
# milliseconds and kilobytes, whatever the text.
_LENGTH, _CODE_BYTES = 2000, 8192
_IMPORT = "from fractions import Fraction"
# Statements that are not arithmetic; nested, some take exponential time.
_OTHER = re.compile(
  r"\b(import|def|class|lambda|try|finally|with|async|await|match|del)\b"
)
_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST.


def compiled(step: str, filename: str) -> bytes | None:
  """Returns the marshalled code of a step of pure arithmetic, else None.

  Args:
    step: source code. A step that may be costly to compile is none.
    filename: file name to compile it with.
  """
  if len(step) > _LENGTH or _OTHER.search(step.replace(_IMPORT, "")):
    return None
  try:
    tree = compile(step, filename, "exec", _ONLY_AST, True)
    if not is_pure_arithmetic(tree):
      return None
    code = marshal.dumps(compile(tree, filename, "exec", 0, True))
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return None
  # The compiler computes constants: a short text may make long ones.
  return code if len(code) <= _CODE_BYTES else None


def is_pure_arithmetic(tree: ast.AST) -> bool:
  """Returns whether code may share a process with other pure arithmetic.

  Args:
    tree: syntax tree of a module.
  """
  return all(map(_allowed, ast.walk(tree)))


def _allowed(node: ast.AST) -> bool:
  if isinstance(node, ast.Name):
    # Names with an underscore reach the interpreter's own objects. A builtin
    # that is assigned would no longer be the function that is called.
    return node.id[0] != "_" and (
      isinstance(node.ctx, ast.Load) or node.id not in _CALLS
    )
  if isinstance(node, ast.Call):
    return (
      isinstance(node.func, ast.Name)
      and node.func.id in _CALLS
      and all(_print_option(node.func.id, each) for each in node.keywords)
    )
  if isinstance(node, ast.ImportFrom):
    return ast.unparse(node) == _IMPORT
  if isinstance(node, ast.alias):
    return True  # Checked with its import.
  if isinstance(node, ast.keyword):
    return True  # Checked with its call.
  if isinstance(node, ast.Subscript):
    return isinstance(node.ctx, ast.Load)
  return isinstance(node, _NODES)


def _print_option(function: str, keyword: ast.keyword) -> bool:
  return function == "print" and keyword.arg in ("sep", "end")
