"""The examples of programs are in the grammar, run, and pass their tests."""

import doctest

from absl.testing import absltest

from rstar_jax.grading import judging
from rstar_jax.sandbox.pool import Sandbox
from rstar_jax.steps import grammar
from rstar_jax.tasks import code
from rstar_jax.types import Problem


class CodeTest(absltest.TestCase):
  def test_examples_are_solutions_in_the_grammar(self):
    for question, nodes in code.EXAMPLES:
      for index, node in enumerate(nodes):
        written = node.partition("\n" + grammar.OUTPUT)[0]
        finish = next(
          finish
          for marker, finish in grammar.FINISHES.items()
          if written.endswith(marker)
        )
        self.assertIsNone(grammar.problem_with(nodes[:index], written, finish))
      self.assertIn(question, code.CODE.few_shot("q"))

  def test_examples_print_what_they_show_and_do_what_is_asked(self):
    with Sandbox(workers=1) as sandbox:
      for question, nodes in code.EXAMPLES:
        (result,) = sandbox.run([grammar.program(nodes)])
        closed = nodes[-2].partition("\n" + grammar.OUTPUT)[0]
        self.assertEqual(nodes[-2], grammar.with_output(closed, result.stdout))
        # The question's own example, by another reader, which takes the quotes
        # after it for a part of it.
        (asked,) = doctest.DocTestParser().get_examples(question)
        wanted = asked.want.splitlines()[0]
        tests = f"assert {asked.source.strip()} == {wanted}"
        problem = Problem("p", question, tests=tests)
        answer = judging.answer_of(problem, nodes)
        self.assertEqual(
          judging.passes(sandbox.run, [(problem, answer)]), ["equal"]
        )

  def test_names_every_marker_that_is_written(self):
    for marker in (*grammar.FINISHES, grammar.OUTPUT, grammar.ANSWER):
      self.assertIn(marker, code.INSTRUCTION)


if __name__ == "__main__":
  absltest.main()
