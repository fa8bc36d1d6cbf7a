"""Tests of the text side of expansion."""

import numpy as np
from absl.testing import absltest
from flax import nnx

from rstar_jax.config.schema import EngineConfig
from rstar_jax.inference.engine import Generated
from rstar_jax.inference.policy import Policy, stop_finishes
from rstar_jax.models.transformer import Transformer
from rstar_jax.steps import grammar, prompts
from rstar_jax.testing import ByteTokenizer, tiny_model


class ScriptedEngine:
  """Gives what it is told, and keeps what it was asked."""

  def __init__(self, rows):
    self.rows = rows
    self.asked = []
    self.groups = []
    self.begun = []

  def expand(self, prefixes, seeds, *, group=0):
    self.asked.append((prefixes, seeds))
    self.groups.append(group)
    return self.rows

  def forget(self, group):
    self.begun.append(group)


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
    Generated(tuple(tokenizer.encode(text)), -1.5, stop)
    for text, stop in zip(texts, stops, strict=True)
  ]
  rows[-1] = Generated((*rows[-1].token_ids, tokenizer.eos_id), -1.5, stops[-1])
  return texts, ScriptedEngine([rows])


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
    ((prefixes, asked),) = engine.asked
    self.assertEqual(
      tokenizer.decode(prefixes[0]), prompts.prompt("How many?") + prefix[0]
    )
    self.assertEqual(prefixes[0].dtype, np.int32)
    self.assertIs(asked, seeds)

  def test_each_group_begins_with_an_empty_cache(self):
    _, engine = scripted()
    policy = Policy(engine, ByteTokenizer())
    seeds = np.arange(5, dtype=np.uint32)[None]
    first, second = policy.begin(0), policy.begin(3)
    for expand in (second, first, second, policy):
      expand(["?"], [()], seeds)
    self.assertEqual(engine.begun, [0, 3])
    self.assertEqual(engine.groups, [3, 0, 3, 0])

  def test_with_a_model(self):
    tokenizer = ByteTokenizer()
    policy = Policy.of_model(
      Transformer(tiny_model(), rngs=nnx.Rngs(0)),
      tokenizer,
      EngineConfig(max_step_tokens=5, leaf_buckets=(2,), prefix_buckets=(128,)),
    )
    seeds = np.arange(6, dtype=np.uint32).reshape(2, 3)
    out = policy(["How many?", "Why?"], [(), ("x<end_of_step>",)], seeds)
    self.assertEqual([len(row) for row in out], [3, 3])
    stops = stop_finishes(tokenizer)
    for candidate in out[0] + out[1]:
      self.assertBetween(len(candidate.token_ids), 1, 5)
      self.assertEqual(
        candidate.finish, stops.get(candidate.token_ids[-1], "length")
      )
      self.assertEqual(candidate.text, tokenizer.decode(candidate.token_ids))
    # A prompt of 128 bytes or more does not fit: nothing was written.
    ((long,),) = policy(["w" * 128], [()], seeds[:1, :1])
    self.assertEqual((long.text, long.finish), ("", "length"))

  def test_finishes_are_the_grammar_s(self):
    tokenizer = ByteTokenizer()
    finishes = stop_finishes(tokenizer)
    self.assertLen(finishes, len(grammar.FINISHES) + 1)
    self.assertEqual(finishes[tokenizer.id_of("<end_of_answer>")], "answer")
    self.assertEqual(finishes[tokenizer.eos_id], "eos")


if __name__ == "__main__":
  absltest.main()
