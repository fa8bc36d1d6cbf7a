"""Tests of a model that is shown examples: where steps end, what is counted."""

import concurrent.futures
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax.inference.few_shot import FewShot, stop_words
from rstar_jax.inference.generated import Generated
from rstar_jax.steps import grammar, prompts
from rstar_jax.steps.tokenizer import HfTokenizer
from tests.steps import alike


class Plain:
  """Characters as ids: a tokenizer to which markers are plain text."""

  vocab_size, pad_id, eos_id, bos_ids = 300, 0, 1, (1,)
  misread_in = ()

  def encode(self, text):
    return [2 + ord(c) for c in text]

  def decode(self, ids):
    return "".join(chr(i - 2) for i in ids if i > 1)


class ScriptedEngine:
  """Writes the same texts after whatever prefix."""

  max_new_tokens = 99

  def __init__(self, *texts):
    self.texts = texts
    self.prefixes, self.asked, self.trees = [], [], []

  def submit(self, prefix, seeds, stop, *, temperature=None, tree=""):
    self.trees.append(tree)
    self.prefixes.append(Plain().decode(prefix))
    self.asked.append((prefix, stop, temperature))
    row = []
    for text in self.texts:
      stopped = Plain.eos_id if text.endswith("EOS") else -1
      ids = Plain().encode(text.removesuffix("EOS"))
      ids += [Plain.eos_id] * (stopped > 0)
      row.append(Generated(tuple(ids), (-1.0,) * len(ids), stopped))
    future = concurrent.futures.Future()
    future.set_result(row[: len(seeds)])
    return future


class FewShotTest(parameterized.TestCase):
  def expand(self, *texts, markers=tuple(grammar.FINISHES), prefix=()):
    self.engine = ScriptedEngine(*texts)
    expand = FewShot(self.engine, Plain(), markers)
    seeds = np.zeros((1, len(texts)), np.uint32)
    return expand(["Q?"], [prefix], seeds)[0]

  def test_prompt(self):
    self.expand("x", prefix=("<code>\na = 1\n<end_of_step>",))
    self.assertEqual(
      self.engine.prefixes,
      [prompts.few_shot("Q?") + "<code>\na = 1\n<end_of_step>"],
    )
    ((ids, stop, temperature),) = self.engine.asked
    self.assertEqual(ids[0], Plain.bos_ids[0])
    self.assertEqual((stop.limit, stop.ids), (99, {Plain.eos_id}))
    self.assertEqual(stop.words, tuple(stop_words(Plain(), grammar.FINISHES)))
    self.assertEqual(stop.texts, tuple(grammar.FINISHES))
    self.assertEqual(self.engine.trees, ["Q?"])
    self.assertIsNone(temperature)

  @parameterized.parameters("phi3", "mistral", "metaspace", "qwen2")
  def test_spaces_at_the_beginning_of_a_step(self, name):
    folder = self.create_tempdir().full_path
    alike.write(name, folder)
    tokenizer = HfTokenizer(folder, add_markers=False)
    steps = ("<code>\nif 1:\n<end_of_step>", "  x = 'é'\n <end_of_step>")
    whole = tokenizer.encode(prompts.few_shot("Q?") + "".join(steps))
    engine = mock.Mock(max_new_tokens=99)

    def submit(prefix, seeds, stop, **_):
      del seeds, stop
      given = [*tokenizer.bos_ids, *whole][: len(prefix)]
      self.assertEqual(prefix, given)
      rest = tuple(whole[len(prefix) - len(tokenizer.bos_ids) :])
      future = concurrent.futures.Future()
      future.set_result([Generated(rest, (-1.0,) * len(rest), -1)])
      return future

    engine.submit = submit
    expand = FewShot(engine, tokenizer, tuple(grammar.FINISHES))
    for count, step in enumerate(steps):
      ((found,),) = expand(["Q?"], [steps[:count]], np.zeros((1, 1), np.uint32))
      self.assertEqual([found.text, found.finish], [step, "step"])

  def test_options_of_a_request(self):
    engine = ScriptedEngine("x")
    policy = FewShot(
      engine, Plain(), [grammar.END_OF_CODE], limit=5, temperature=0.0
    )
    (one,) = policy.submit("Q?", (), [3]).result()
    self.assertEqual(one.text, "x")
    ((_, stop, temperature),) = engine.asked
    self.assertEqual((stop.limit, temperature), (5, 0.0))
    self.assertEqual(
      [Plain().decode(word) for word in stop.words], ["end_of_code"]
    )

  def test_a_step_is_cut_after_its_marker(self):
    first, second, third = self.expand(
      "<code>\na = 1\n<end_of_step>\n\nb = 2\n<end_of_step>",
      "\n<code>\nprint(1)\n<end_of_code>",
      "a long one that ends nowhere",
    )
    text = "<code>\na = 1\n<end_of_step>"
    self.assertEqual((first.text, first.finish), (text, "step"))
    # What was cut off is not counted.
    self.assertEqual(Plain().decode(first.token_ids), text)
    self.assertEqual(first.logprob, -len(first.token_ids))
    # White space before the opening is no part of the step, though paid for.
    self.assertEqual(second.text, "<code>\nprint(1)\n<end_of_code>")
    self.assertEqual(second.finish, "code")
    self.assertEqual(second.logprob, -len(second.token_ids))
    self.assertEqual(third.finish, "length")

  def test_a_block_goes_on_over_steps(self):
    (block,) = self.expand(
      "<code>\na = 1\n<end_of_step>\nprint(a)\n<end_of_code> and so on",
      markers=(grammar.END_OF_CODE, grammar.END_OF_ANSWER),
    )
    self.assertEqual(
      block.text, "<code>\na = 1\n<end_of_step>\nprint(a)\n<end_of_code>"
    )
    self.assertEqual(block.finish, "code")
    self.assertIsNone(grammar.problem_with_block(block.text, block.finish))

  def test_saying_the_output_closes_the_code(self):
    text = (
      "<code>\nprint(1)\n<output>1<end_of_output>\n<answer>1<end_of_answer>"
    )
    (block,) = self.expand(text, markers=(grammar.END_OF_CODE,))
    self.assertEqual(block.text, "<code>\nprint(1)\n<end_of_code>")
    self.assertEqual(block.finish, "code")
    self.assertEqual(Plain().decode(block.token_ids), "<code>\nprint(1)\n")

  def test_stop_words_are_the_insides(self):
    words = stop_words(Plain(), [grammar.END_OF_CODE, "<a>"])
    self.assertEqual([Plain().decode(word) for word in words], ["end_of_code"])

  def test_end_of_text(self):
    (ended,) = self.expand("I do not know.EOS")
    self.assertEqual((ended.text, ended.finish), ("I do not know.", "eos"))


if __name__ == "__main__":
  absltest.main()
