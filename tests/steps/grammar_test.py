"""Every rule of the step grammar, with hand-written texts."""

import re

import hypothesis
from absl.testing import absltest, parameterized
from hypothesis import strategies as st

from rstar_jax.steps import grammar

FIRST = "<code>\n# Tom has 14\nTom = 14\n<end_of_step>"
SECOND = "\n\n# double it\nTom *= 2\n<end_of_step>"
LAST = "\n\n# Now print the final answer\nprint(Tom)\n<end_of_code>"
SHOWN = LAST + "\n<output>28<end_of_output>\n"
ANSWER = "<answer>The answer is \\boxed{28}.<end_of_answer>"


class ProblemWithTest(parameterized.TestCase):
  @parameterized.parameters(
    ((), FIRST, "step"),
    ((), "<code>\nprint(1)\n<end_of_code>", "code"),
    ((), "\n<code>\nx = 1\n<end_of_step>", "step"),
    ((FIRST,), SECOND, "step"),
    ((FIRST, SECOND), LAST, "code"),
    ((FIRST, SHOWN), ANSWER, "answer"),
  )
  def test_accepts(self, prefix, text, finish):
    self.assertIsNone(grammar.problem_with(prefix, text, finish))

  @parameterized.parameters(
    # Not closed by a marker.
    ((), "<code>\nx = 1\n", "length", "no closing marker (length)"),
    ((), "", "eos", "no closing marker (eos)"),
    # An answer without code, an answer after open code, code after code.
    ((), ANSWER, "answer", "an answer must follow code"),
    ((FIRST,), ANSWER, "answer", "an answer must follow code"),
    ((FIRST, SHOWN), SECOND, "step", "code after code"),
    ((FIRST, SHOWN), LAST, "code", "code after code"),
    # The first step opens the code and no other does.
    ((), SECOND, "step", "markers out of order"),
    ((FIRST,), FIRST, "step", "markers out of order"),
    ((), "x = 1\n<code>\n<end_of_step>", "step", "does not start with <code>"),
    # The policy may not write the interpreter's part, nor another turn.
    ((FIRST,), SHOWN + "<end_of_code>", "code", "markers out of order"),
    ((FIRST,), "x = 1<|user|><end_of_step>", "step", "markers out of order"),
    # The closing marker is the one that `finish` names, and comes last.
    ((FIRST,), SECOND, "code", "markers out of order"),
    ((FIRST,), SECOND + " x", "step", "text after <end_of_step>"),
    # Nothing to run.
    ((), "<code>\n \n<end_of_step>", "step", "no code"),
    ((FIRST,), "\n<end_of_code>", "code", "no code"),
    # An answer is boxed, in answer markers.
    ((SHOWN,), "<answer>It is 28.<end_of_answer>", "answer", "no boxed answer"),
    ((SHOWN,), "\\boxed{28}<end_of_answer>", "answer", "markers out of order"),
    (
      (SHOWN,),
      "So <answer>\\boxed{28}<end_of_answer>",
      "answer",
      "does not start with <answer>",
    ),
  )
  def test_refuses(self, prefix, text, finish, reason):
    self.assertEqual(grammar.problem_with(prefix, text, finish), reason)


class BlockTest(parameterized.TestCase):
  def test_split_cuts_behind_each_step(self):
    block = FIRST + SECOND + LAST
    self.assertEqual(grammar.split_block(block), (FIRST, SECOND, LAST))
    self.assertEqual(grammar.split_block(FIRST + SECOND), (FIRST, SECOND))
    self.assertEqual(grammar.split_block(""), ())

  def test_block_accepted(self):
    one = "<code>\nprint(1)\n<end_of_code>"
    self.assertIsNone(grammar.problem_with_block(one, "code"))
    self.assertIsNone(grammar.problem_with_block(FIRST + SECOND + LAST, "code"))

  @parameterized.parameters(
    (FIRST + SECOND, "length", "no closing marker of the code (length)"),
    (ANSWER, "answer", "no closing marker of the code (answer)"),
    (FIRST + FIRST + LAST, "code", "step 2: markers out of order"),
    (FIRST + "\n<end_of_step>" + LAST, "code", "step 2: no code"),
    (FIRST + SHOWN + LAST, "code", "step 2: markers out of order"),
    (FIRST + SECOND, "code", "step 2: markers out of order"),
    ("", "code", "step 1: markers out of order"),
  )
  def test_block_refused(self, text, finish, reason):
    self.assertEqual(grammar.problem_with_block(text, finish), reason)


class CodeTest(absltest.TestCase):
  def test_code_of_drops_markers_and_output(self):
    self.assertEqual(grammar.code_of(FIRST), "\n# Tom has 14\nTom = 14\n")
    self.assertEqual(
      grammar.code_of(SHOWN),
      "\n\n# Now print the final answer\nprint(Tom)\n\n\n",
    )

  def test_output_over_several_lines_is_dropped(self):
    text = "print(1)<end_of_code>\n<output>1\nx = 2<end_of_output>\n"
    self.assertEqual(grammar.code_of(text).split(), ["print(1)"])

  def test_program_leaves_the_answer_out_and_runs(self):
    program = grammar.program((FIRST, SECOND, SHOWN, ANSWER))
    self.assertLen(program, 3)
    scope = {"print": lambda x: scope.setdefault("shown", x)}
    for step in program:
      exec(step, scope)
    self.assertEqual(scope["shown"], 28)


class OutputTest(absltest.TestCase):
  def test_output_follows_the_code(self):
    self.assertEqual(grammar.with_output(LAST, "28\n"), SHOWN)

  def test_long_output_is_cut_in_the_middle(self):
    text = grammar.with_output("", "a" * 700 + "b" * 701)
    self.assertEqual(
      text,
      "\n<output>" + "a" * 512 + "..." + "b" * 512 + "<end_of_output>\n",
    )

  def test_output_at_the_limit_is_whole(self):
    text = grammar.with_output("", "7" * 1024)
    self.assertEqual(text, f"\n<output>{'7' * 1024}<end_of_output>\n")

  def test_printed_markers_are_defused(self):
    text = grammar.with_output(LAST, "<end_of_output><answer>\\boxed{1}")
    self.assertIn("< end_of_output>< answer>\\boxed{1}", text)
    self.assertEqual(
      grammar.MARKER.findall(text),
      ["<end_of_code>", "<output>", "<end_of_output>"],
    )

  def test_spans_are_what_with_output_wrote(self):
    text = FIRST + SHOWN + ANSWER
    ((start, end),) = grammar.output_spans(text)
    self.assertEqual(text[start:end], "\n<output>28<end_of_output>\n")
    self.assertEqual(text[:start] + text[end:], FIRST + LAST + ANSWER)

  @hypothesis.settings(max_examples=200, deadline=None)
  @hypothesis.given(
    st.lists(
      st.sampled_from(["<output>", "<end_of_output>", "a", "\n", "<", "code>"])
    )
  )
  def test_spans_of_anything_by_a_regular_expression(self, pieces):
    text = "".join(pieces)
    span = re.compile("<output>.*?<end_of_output>", re.DOTALL)
    self.assertEqual(
      grammar.code_of(text), grammar.MARKER.sub("", span.sub("", text))
    )
    expected = [
      match.span() for match in re.finditer(f"\n?{span.pattern}\n?", text, re.S)
    ]
    # A line break between two spans belongs to both.
    found = grammar.output_spans(text)
    self.assertEqual([end for _, end in found], [end for _, end in expected])
    self.assertLen(found, len(span.findall(text)))

  def test_spans_at_the_edges_and_several(self):
    text = "<output>1<end_of_output>x<output>\n<end_of_output>"
    self.assertEqual(grammar.output_spans(text), [(0, 24), (25, 49)])
    self.assertEqual(grammar.output_spans(FIRST), [])

  def test_output_of(self):
    self.assertIsNone(grammar.output_of("print(1)\n<end_of_code>"))
    text = grammar.with_output("print(1)\n<end_of_code>", "1\n<output>2\n")
    self.assertEqual(grammar.output_of(text), "1\n< output>2")


if __name__ == "__main__":
  absltest.main()
