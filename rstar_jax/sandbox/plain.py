"""Tells which code can share a process, because it cannot leave anything there.

A fork costs about a millisecond, a line of arithmetic some microseconds, and
most programs that a small model writes are arithmetic. Code is *plain* when its
syntax tree holds only what this file lists: no other import, no attribute, no
definition, and no call but of a few pure builtins, and of Fraction imported in
the usual way, by their own names. Such code
has nothing to reach beyond the names that it assigns itself, so that a fresh
namespace is all the isolation it needs. It may still loop, fail, or fill memory
and output; the sandbox treats that as for any program.

Runs inside the sandbox's processes: standard library only.
"""

import ast

# Called with plain values these change nothing but their own result.
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


def is_plain(tree: ast.AST) -> bool:
  """Returns whether code may share a process with other plain code.

  Args:
    tree: syntax tree of a module.
  """
  return all(map(_allowed, ast.walk(tree)))


def _allowed(node: ast.AST) -> bool:
  if isinstance(node, ast.Name):
    # An underscore reaches the interpreter's own names. A builtin that was
    # assigned would no longer be what is called.
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
    return ast.unparse(node) == "from fractions import Fraction"
  if isinstance(node, ast.alias):
    return True  # Judged with its import.
  if isinstance(node, ast.keyword):
    return True  # Judged with its call.
  if isinstance(node, ast.Subscript):
    return isinstance(node.ctx, ast.Load)
  return isinstance(node, _NODES)


def _print_option(function: str, keyword: ast.keyword) -> bool:
  return function == "print" and keyword.arg in ("sep", "end")
