"""Tests of the text side of expansion."""

import concurrent.futures

import numpy as np
from absl.testing import absltest

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.engine import Engine
from rstar_jax.inference.generated import LOST, Generated
from rstar_jax.inference.policy import Policy, stop_finishes
from rstar_jax.steps import grammar, prompts
from rstar_jax.testing import ByteTokenizer
from tests.inference import small


class ScriptedEngine:
  """Gives what it is told, and keeps what it was asked."""

  max_new_tokens = 33

  def __init__(self, row):
    self.row, self.asked, self.trees = row, [], []

  def submit(self, prefix, seeds, stop, *, temperature=None, tree=""):
    self.trees.append(tree)
    self.asked.append((prefix, seeds, stop, temperature))
    future = concurrent.futures.Future()
    future.set_result(self.row)
    return future


def scripted():
  tokenizer = ByteTokenizer()
  texts = ["<code>\nx = 1\n<end_of_step>", "y", "print(x)<end_of_code>"]
  texts += ["<answer>\\boxed{1}<end_of_answer>", "done"]
  stops = [tokenizer.id_of(t) if t else -1 for t in ("<end_of_step>", "")]
  stops += [
    tokenizer.id_of("<end_of_code>"),
    tokenizer.id_of("<end_of_answer>"),
  ]
  stops.append(tokenizer.eos_id)
  rows = [
    Generated(tuple(tokenizer.encode(text)), (-1.0, -0.5), stop)
    for text, stop in zip(texts, stops, strict=True)
  ]
  ids = (*rows[-1].token_ids, tokenizer.eos_id)
  rows[-1] = Generated(ids, (-1.0, -0.5), stops[-1])
  return texts, ScriptedEngine(rows)


class PolicyTest(absltest.TestCase):
  def test_candidates(self):
    texts, engine = scripted()
    tokenizer = ByteTokenizer()
    seeds = np.arange(5, dtype=np.uint32)[None]
    prefix = ("<code>\na = 2\n<end_of_step>",)
    (row,) = Policy(engine, tokenizer)(["How many?"], [prefix], seeds)
    self.assertEqual([each.text for each in row], texts)
    self.assertEqual(
      [each.finish for each in row], ["step", "length", "code", "answer", "eos"]
    )
    self.assertEqual(row[0].token_ids[-1], tokenizer.id_of("<end_of_step>"))
    self.assertEqual(row[0].logprob, -1.5)
    ((ids, asked, stop, temperature),) = engine.asked
    self.assertEqual(
      tokenizer.decode(ids), prompts.prompt("How many?") + prefix[0]
    )
    self.assertEqual(list(asked), [0, 1, 2, 3, 4])
    self.assertEqual((stop.limit, stop.words), (33, ()))
    self.assertEqual(stop.ids, frozenset(stop_finishes(tokenizer)))
    self.assertIsNone(temperature)
    self.assertEqual(engine.trees, ["How many?"])

  def test_nothing_was_had(self):
    policy, engine = scripted()
    del policy
    engine.row = [Generated((), (), stopped) for stopped in (LOST, -1)]
    found = Policy(engine, ByteTokenizer(), limit=3).submit("?", (), [1, 2])
    self.assertEqual(
      [each.finish for each in found.result()], ["lost", "length"]
    )

  def test_a_block_goes_on_over_steps(self):
    _, engine = scripted()
    tokenizer = ByteTokenizer()
    policy = Policy(
      engine, tokenizer, finishes=("code", "answer"), limit=7, temperature=0.0
    )
    policy.submit("?", (), [1]).result()
    ((_, _, stop, temperature),) = engine.asked
    ends = {"<end_of_code>", "<end_of_answer>"}
    want = {tokenizer.eos_id, *map(tokenizer.id_of, ends)}
    self.assertEqual((stop.limit, stop.ids, temperature), (7, want, 0.0))

  def test_with_a_model(self):
    tokenizer = ByteTokenizer()
    config = EngineConfig(
      max_step_tokens=5,
      max_block_tokens=9,
      max_prefix_tokens=128,
      prefill_tokens=64,
      kernels="xla",
    )
    engine = Engine(small.model(), config)
    policy = Policy(engine, tokenizer, limit=5)
    seeds = np.arange(6, dtype=np.uint32).reshape(2, 3)
    questions, prefixes = ["How many?", "Why?"], [(), ("x<end_of_step>",)]
    out = policy(questions, prefixes, seeds)
    self.assertEqual([len(row) for row in out], [3, 3])
    stops = stop_finishes(tokenizer)
    for candidate in out[0] + out[1]:
      self.assertBetween(len(candidate.token_ids), 1, 5)
      self.assertEqual(
        candidate.finish, stops.get(candidate.token_ids[-1], "length")
      )
      self.assertEqual(candidate.text, tokenizer.decode(candidate.token_ids))
    one = policy.submit(questions[1], prefixes[1], seeds[1]).result()
    self.assertEqual(one, out[1])
    # A prompt of more than 128 bytes does not fit: nothing was written.
    ((long,),) = policy(["w" * 129], [()], seeds[:1, :1])
    self.assertEqual((long.text, long.finish), ("", "length"))

  def test_finishes_are_the_grammar_s(self):
    tokenizer = ByteTokenizer()
    finishes = stop_finishes(tokenizer)
    self.assertLen(finishes, len(grammar.FINISHES) + 1)
    self.assertEqual(finishes[tokenizer.id_of("<end_of_answer>")], "answer")
    self.assertEqual(finishes[tokenizer.eos_id], "eos")


if __name__ == "__main__":
  absltest.main()
