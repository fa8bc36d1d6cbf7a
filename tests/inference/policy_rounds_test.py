"""Rounds of training and sampling: no text and no id drifts.

The model of a round knows the rows that it was trained on by heart, and nothing
else: it goes on from a prefix only if that has the ids of a row, and then with
the row's. What it writes is run, and trains the model of the next round.
"""

import concurrent.futures
import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.data import batches
from rstar_jax.inference.generated import Generated
from rstar_jax.inference.policy import Policy
from rstar_jax.steps import as_written, grammar
from rstar_jax.steps.tokenizer import HfTokenizer, encode_solution
from rstar_jax.testing import run_trusted
from tests.steps import alike

# By question, what a teacher writes, without the interpreter's output.
SOLUTIONS = {
  "Zoë  has 12 apples, and Tom's 3 friends 2 each. How many?": (
    "<code>x = 12\nif x:\n    y = '  a'\n<end_of_step>",
    "\n\n# Größe:  the friends'\nfor i in range(3):\n\tx += 2\n<end_of_step>",
    "\n\n# Now print the final answer\nprint('', x) \nprint()\n<end_of_code>",
    "<answer> There are \\boxed{18}. <end_of_answer>",
  ),
  "What is x²≤9, naïvely?": (
    "<code>\n# naïve   \nx = 3<end_of_step>",
    "print(-x, '\u2264', x)<end_of_code>",
    "<answer>\\boxed{-3\u22643}<end_of_answer>",
  ),
}


class ByHeart:
  """Goes on from the prefixes of rows as the rows do, up to a stop id."""

  max_new_tokens = 1000

  def __init__(self, rows):
    self.rows = rows

  def submit(self, prefix, seeds, stop, *, temperature=None, tree=""):
    del temperature, tree
    ids, stopped = (), -1
    for row in self.rows:
      if row[: len(prefix)] == list(prefix):
        for token in row[len(prefix) :]:
          ids += (token,)
          if token in stop.ids:
            stopped = token
            break
        break
    future = concurrent.futures.Future()
    logprobs = (-0.5,) * len(ids)
    future.set_result([Generated(ids, logprobs, stopped) for _ in seeds])
    return future


class RoundsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def solve(self, tokenizer, rows, question):
    """Returns the nodes that a model of rows writes, and all ids of them."""
    policy = Policy(ByHeart(rows), tokenizer)
    nodes, ids = (), [*tokenizer.bos_ids]
    ids += tokenizer.encode(tokenizer.prompt(question))
    while not (nodes and nodes[-1].endswith(grammar.END_OF_ANSWER)):
      ((found,),) = policy([question], [nodes], np.zeros((1, 1), np.uint32))
      reason = grammar.problem_with(nodes, found.text, found.finish)
      self.assertIsNone(reason, f"{nodes} {found}")
      ids += found.token_ids
      text = found.text
      if found.finish != "answer":
        program = [*grammar.program(nodes), grammar.code_of(text)]
        (ran,) = run_trusted([program])
        self.assertEqual(ran.status, "ok", f"{ran.error}: {program}")
        if found.finish == "code":
          text = grammar.with_output(text, ran.stdout)
          ids += tokenizer.encode(text[len(found.text) :])
      nodes += (text,)
      # What the next step and the reward model see is what was sampled.
      self.assertEqual(
        encode_solution(tokenizer, tokenizer.prompt(question), nodes), ids
      )
    return nodes, ids

  def rounds(self, name):
    """Runs four rounds, each with the tokenizer that the last one saved."""
    alike.write(name, self.folder / "0")
    tokenizer = HfTokenizer(self.folder / "0")
    rows = []
    for question, texts in SOLUTIONS.items():
      nodes = []
      for text in texts:
        nodes.append(text)
        if text.endswith(grammar.END_OF_CODE):
          (ran,) = run_trusted([grammar.program(nodes)])
          nodes[-1] = grammar.with_output(text, ran.stdout)
      rows.append((question, tuple(nodes)))
    first = [batches.encode_row(tokenizer, *row)[0].tolist() for row in rows]
    trained = first
    for round_ in range(1, 5):
      written = []
      for question, nodes in rows:
        found, ids = self.solve(tokenizer, trained, question)
        self.assertEqual(found, nodes)
        self.assertEqual(
          tokenizer.decode(ids), "".join([tokenizer.prompt(question), *nodes])
        )
        written.append((question, found))
      tokenizer.save(self.folder / str(round_))
      tokenizer = HfTokenizer(self.folder / str(round_))
      trained = [
        batches.encode_row(tokenizer, *row)[0].tolist() for row in written
      ]
      self.assertEqual(trained, first)

  @parameterized.parameters(*alike.ALL)
  def test_four_rounds(self, name):
    self.rounds(name)

  @parameterized.parameters(
    *("spaced", "phi3", "llama2", "mistral", "metaspace", "converted")
  )
  def test_rounds_drift_without_what_is_done_for_it(self, name):
    with (
      mock.patch.object(as_written, "keep_in_encoding"),
      mock.patch.object(as_written, "keep_in_decoding"),
      mock.patch.object(as_written, "problem", return_value=None),
      self.assertRaises(AssertionError),
    ):
      self.rounds(name)


if __name__ == "__main__":
  absltest.main()
