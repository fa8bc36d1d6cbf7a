"""What a program printed, a policy wrote, or a terminal shows."""

import math
import random
from typing import Any

from rstar_jax import outside
from rstar_jax.report import trees as report_trees
from rstar_jax.search import driver, expansion
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.tree import Tree
from rstar_jax.steps import grammar
from rstar_jax.types import Candidate, ExecResult, Problem
from tests.fuzz import hostile
from tests.fuzz.hostile import Outcome, check_shown, check_text
from tests.search.toys import calls_of, config_of


class Texts:
  """What a program printed, and what is printed on a terminal."""

  def __init__(self, tokenizer: Any):
    self._tokenizer = tokenizer

  def program(self, source: random.Random) -> Outcome:
    """What a program printed, in a search, its records and its report."""
    printed, error = hostile.text(source), hostile.text(source)
    result = ExecResult("ok", printed, error)
    text = f"<code>\nx = 1\n{grammar.END_OF_CODE}"
    tree = self._grown(
      Problem("p", "make 2", "2"),
      [Candidate(text, (1, 2), -1.0, "code")],
      result,
    )
    assert len(tree) == 2, tree.dropped
    return "used"

  def policy(self, source: random.Random) -> Outcome:
    """What a policy wrote: a server's, or a user's."""
    finish = source.choice(("step", "code", "answer", "eos", "length", "lost"))
    inner = [hostile.text(source) for _ in range(3)]
    if finish == "step":
      inner = [f"<code>\n{text}\n<end_of_step>" for text in inner]
    written = [Candidate(text, (1,), math.nan, finish) for text in inner]
    question = hostile.text(source)
    problem = Problem(hostile.text(source), question, hostile.text(source))
    tree = self._grown(problem, written, ExecResult("ok", "1"))
    return "used" if len(tree) > 1 else "set aside"

  def _grown(
    self, problem: Problem, written: list[Candidate], result: ExecResult
  ) -> Tree:
    tree = Tree(problem)
    calls = calls_of(
      lambda questions, prefixes, seeds: [written],
      verify=lambda programs: [result] * len(programs),
    )
    config = config_of(candidates=len(written))
    driver.run_searches([expansion.grow(tree, 0, config)], calls, 1)
    text = tree.to_json()
    again = tree_lib.from_record(outside.parse(text))
    assert again.to_json() == text
    report_trees.encode(report_trees.compact(tree))
    for each in (problem.id, problem.question, *tree.texts):
      check_text(each)
      self._tokenizer.encode(each)
    return tree

  def tokens(self, source: random.Random) -> Outcome:
    """A text of the user's, as the tokenizer takes it."""
    text = hostile.text(source)
    ids = self._tokenizer.encode(text)
    check_text(self._tokenizer.decode(ids))
    return "used"

  def terminal(self, source: random.Random) -> Outcome:
    """A line on a terminal, and in a log."""
    text = hostile.text(source)
    check_shown(outside.shown(text))
    line = outside.line(text)
    check_shown(line)
    assert "\n" not in line
    return "used"
