"""Small changes of a Python file, each of which a test should notice.

Nothing is changed that no test should assert: docstrings, type hints,
decorators, assertions, texts of errors, messages of logs and warnings, and what
stands below `if __name__ == "__main__"`. Formatted strings are left out too,
whose places in a file Python tells only from 3.12 on.
"""

import ast
import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator

_INVERSE = {
  ast.Eq: ast.NotEq,
  ast.NotEq: ast.Eq,
  ast.Is: ast.IsNot,
  ast.IsNot: ast.Is,
  ast.In: ast.NotIn,
  ast.NotIn: ast.In,
  ast.Lt: ast.GtE,
  ast.GtE: ast.Lt,
  ast.Gt: ast.LtE,
  ast.LtE: ast.Gt,
}
_BOUNDARY = {
  ast.Lt: ast.LtE,
  ast.LtE: ast.Lt,
  ast.Gt: ast.GtE,
  ast.GtE: ast.Gt,
}
_OPERATOR = {
  ast.Add: ast.Sub,
  ast.Sub: ast.Add,
  ast.Mult: ast.Div,
  ast.Div: ast.Mult,
  ast.FloorDiv: ast.Mult,
  ast.Mod: ast.FloorDiv,
  ast.Pow: ast.Mult,
  ast.LShift: ast.RShift,
  ast.RShift: ast.LShift,
  ast.BitAnd: ast.BitOr,
  ast.BitOr: ast.BitAnd,
}
# Functions, methods and dtypes that are taken for each other.
_NAMES = {
  "min": "max",
  "minimum": "maximum",
  "argmin": "argmax",
  "amin": "amax",
  "any": "all",
  "ceil": "floor",
  "bfloat16": "float32",
  "float64": "float32",
}
_NAMES |= {other: name for name, other in _NAMES.items() if other != "float32"}
# Of numpy, which has no bfloat16, float32 becomes float16.
_SHORTER = {"jnp": "bfloat16", "np": "float16"}
_SILENT = ("logging", "warnings")
# Arguments that only say what the author holds for certain.
_ASSERTIONS = ("strict",)


@dataclasses.dataclass(frozen=True)
class Mutant:
  """One change of one file.

  Attributes:
    file: path below the root.
    within: dotted name of the class or function, "" at the top of a file.
    kind: of change, e.g. "boundary".
    before, after: the change, as Python writes it.
    nth: place among the equal changes within the same function, from 0.
    line: of the change, from 1.
    span: bytes of the file that are replaced, [start, end).
    code: what replaces them.
    lines: of the statement, [first, last], or of the body that a default
      belongs to.
  """

  file: str
  within: str
  kind: str
  before: str
  after: str
  nth: int
  line: int
  span: tuple[int, int]
  code: str
  lines: tuple[int, int]

  @property
  def name(self) -> str:
    """Tells it from all others, wherever in the file its function moves to."""
    nth = f" #{self.nth}" if self.nth else ""
    return (
      f"{self.file} {self.within or '-'} {self.kind}: "
      f"{self.before} -> {self.after}{nth}"
    )

  def apply(self, text: bytes) -> bytes:
    """Returns the file's text with the change."""
    start, end = self.span
    new = self.code
    # An expression may stand in a stronger one; a statement cannot.
    with contextlib.suppress(SyntaxError):
      ast.parse(new, mode="eval")
      new = f"({new})"
    return text[:start] + new.encode() + text[end:]


def sample(mutants: list[Mutant], n: int, seed: int) -> list[Mutant]:
  """Returns up to n of them, which a seed and their names decide."""

  def order(mutant: Mutant) -> bytes:
    return hashlib.sha256(f"{seed} {mutant.name}".encode()).digest()

  return sorted(mutants, key=order)[:n]


def of(file: str, text: str) -> list[Mutant]:
  """Returns every change of a file, by place."""
  starts = [0]
  for line in text.encode().splitlines(keepends=True):
    starts.append(starts[-1] + len(line))
  found, seen = [], {}
  for change, within, lines in _walk(ast.parse(text), "", (1, 1)):
    kind, node, before, after, code = change
    key = within, kind, before, after
    seen[key] = seen.get(key, -1) + 1
    place = starts[node.lineno - 1] + node.col_offset
    end = starts[node.end_lineno - 1] + node.end_col_offset
    found.append(
      Mutant(
        *(file, within, kind, before, after, seen[key], node.lineno),
        *((place, end), code, lines),
      )
    )
  return sorted(found, key=lambda each: (each.span, each.kind, each.code))


def _walk(node: ast.AST, within: str, lines: tuple[int, int]) -> Iterator:
  """Yields (change, within, lines) of a node and of all below it.

  A change is (kind, node, before, after, code), see `Mutant`.
  """
  if isinstance(node, ast.stmt):
    if _says_nothing(node):
      return
    body = getattr(node, "body", None)
    last = body[0].lineno - 1 if body else node.end_lineno
    lines = node.lineno, max(last, node.lineno)
  if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
    within = f"{within}.{node.name}".strip(".")
    if not isinstance(node, ast.ClassDef):
      span = node.body[0].lineno, node.end_lineno
      for default in (*node.args.defaults, *node.args.kw_defaults):
        if default is not None:
          for change, *_ in _walk(default, within, span):
            yield ("default", *change[1:]), within, span
    children = node.body
  elif isinstance(node, ast.AnnAssign):
    children = [node.value] if node.value else []
  elif isinstance(node, ast.JoinedStr):
    return
  elif isinstance(node, ast.keyword) and node.arg in _ASSERTIONS:
    return
  else:
    children = ast.iter_child_nodes(node)
  for kind, target, new in _changes(node):
    before, after = _line(target), _line(new)
    code = after
    if kind == "keyword":
      gone = {each.arg for each in target.keywords}
      gone -= {each.arg for each in new.keywords}
      before, after = f"{_line(node.func)}({gone.pop()}=...)", "dropped"
    yield (kind, target, before, after, code), within, lines
  for child in children:
    yield from _walk(child, within, lines)


def _says_nothing(node: ast.stmt) -> bool:
  """Whether a statement has nothing that a test should assert."""
  match node:
    case ast.Raise() | ast.Assert() | ast.Import() | ast.ImportFrom():
      return True
    case ast.Expr(value=ast.Constant(value=str())):
      return True
    case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
      return name in _SILENT
    case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
      return True
    case ast.If(test=ast.Name(id="TYPE_CHECKING")):
      return True
    case ast.If(test=ast.Attribute(attr="TYPE_CHECKING")):
      return True
    case ast.Assign(targets=[ast.Name(id="__all__")]):
      return True
  return False


def _line(node: ast.AST) -> str:
  """Returns the code of a node in one line."""
  return " ".join(ast.unparse(node).split("\n"))


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST]]:
  """Yields (kind, what is replaced, replacement) of one node."""
  match node:
    case ast.Compare(left=left, ops=ops, comparators=others):
      for table, kind in ((_INVERSE, "comparison"), (_BOUNDARY, "boundary")):
        for i, op in enumerate(ops):
          if type(op) in table:
            new = [*ops[:i], table[type(op)](), *ops[i + 1 :]]
            yield kind, node, ast.Compare(left, new, others)
    case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATOR:
      if not (_is_text(left) or _is_text(right)):
        new = _OPERATOR[type(op)]()
        yield "operator", node, ast.BinOp(left, new, right)
    case ast.AugAssign(target=target, op=op, value=value):
      if type(op) in _OPERATOR and not _is_text(value):
        new = _OPERATOR[type(op)]()
        yield "operator", node, ast.AugAssign(target, new, value)
    case ast.BoolOp(op=op, values=values):
      other = ast.Or() if isinstance(op, ast.And) else ast.And()
      yield "logic", node, ast.BoolOp(other, values)
    case ast.UnaryOp(op=ast.Not(), operand=operand):
      yield "not", node, operand
    case ast.UnaryOp(op=ast.USub(), operand=operand):
      yield "sign", node, operand
    case ast.Constant(value=bool(value)):
      yield "constant", node, ast.Constant(not value)
    case ast.Constant(value=int(value)):
      # One of the two, or half of all changes would be those of constants.
      odd = hashlib.sha256(f"{value} {node.col_offset}".encode()).digest()[0]
      yield "constant", node, ast.Constant(value + (1 if odd % 2 else -1))
    case ast.Constant(value=float(value)):
      yield "constant", node, ast.Constant(value * 1.1 if value else 1.0)
    case ast.Name(id=name) if name in _NAMES:
      yield "name", node, ast.Name(_NAMES[name])
    case ast.Attribute(value=value, attr=attr):
      new = _NAMES.get(attr)
      if attr == "float32":
        new = _SHORTER.get(getattr(value, "id", ""))
      if new:
        yield "name", node, ast.Attribute(value, new)
    case ast.Call(func=func, args=args, keywords=keywords):
      for i, keyword in enumerate(keywords):
        if keyword.arg and keyword.arg not in _ASSERTIONS:
          rest = keywords[:i] + keywords[i + 1 :]
          yield "keyword", node, ast.Call(func, args, rest)
    case ast.Expr(value=ast.Call() | ast.Await() as call):
      yield "call", call, ast.Constant(None)
    case ast.Return(value=None | ast.Constant(value=None | False)):
      pass  # None for False is no change that a caller sees.
    case ast.Return(value=value):
      yield "return", value, ast.Constant(None)
  test = getattr(node, "test", None) or getattr(node, "guard", None)
  for condition in [test] if test else getattr(node, "ifs", []):
    # What `not` and a comparison alone become is the same.
    single = isinstance(condition, ast.Compare) and len(condition.ops) == 1
    if not single and not _is_not(condition):
      yield "condition", condition, ast.UnaryOp(ast.Not(), condition)


def _is_not(node: ast.AST) -> bool:
  return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _is_text(node: ast.AST) -> bool:
  """Whether a summand shows that the sum is a text or a type."""
  match node:
    case ast.BinOp(left=left, right=right):
      return _is_text(left) or _is_text(right)
    case ast.JoinedStr() | ast.Constant(value=str() | bytes() | None):
      return True
  return False
