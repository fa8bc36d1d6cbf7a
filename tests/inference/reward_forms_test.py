"""Tests of how reward models read, as text; `reward_test` has the values."""

from absl.testing import absltest, parameterized

from rstar_jax.config import plugins
from rstar_jax.inference import reward_forms
from rstar_jax.steps import grammar


class Letters:
  """A tokenizer of characters, and some words that are one token."""

  bos_id, bos_ids = ord("^"), (ord("^"),)
  _words = {"<extra_0>": 0x10000}

  def __init__(self, template=True):
    self._template = template

  def encode(self, text):
    for word, one in self._words.items():
      text = text.replace(word, chr(one))
    return list(map(ord, text))

  def chat(self, turns, *, asks=False):
    if not self._template:
      return None
    said = "".join(f"[{role[0]}:{text}]" for role, text in turns)
    return said + "[a:" * asks


def read(name, steps):
  ids = reward_forms.FORMS[name].read(Letters(), "q?", steps)
  return "".join(map(chr, ids)).replace(chr(0x10000), "|")


class FormsTest(parameterized.TestCase):
  @parameterized.parameters(
    ("outcome", "[u:q?][a:one\n\ntwo]"),
    (
      "qwen",
      "[s:Please reason step by step, and put your final answer within "
      "\\boxed{}.][u:q?][a:one|two|",
    ),
    ("trl", "^q?one\ntwo\n"),
    ("skywork", "^q?\none\ntwo\n"),
    ("math_shepherd", "^q? Step 1: one ки\nStep 2: two ки"),
    ("rlhflow", "[u:q? one][a:+][u:two][a:"),
  )
  def test_texts(self, name, expected):
    self.assertEqual(read(name, ["one", "two"]), expected)

  def test_steps_that_are_numbered_already(self):
    self.assertEqual(
      read("math_shepherd", ["Step 1: a", "step 2: b"]),
      "^q? Step 1: a ки\nstep 2: b ки",
    )

  def test_a_separator_in_the_text_is_none(self):
    self.assertEqual(read("qwen", ["a<extra_0>b"])[-4:], "a|b|")

  @parameterized.parameters("qwen", "rlhflow")
  def test_a_dialogue_needs_a_template(self, name):
    with self.assertRaisesRegex(ValueError, "has no chat template"):
      reward_forms.FORMS[name].read(Letters(template=False), "q?", ["a"])

  def test_nodes_as_texts(self):
    nodes = [
      f"{grammar.CODE}\nx = 1\n{grammar.END_OF_STEP}",
      grammar.with_output(f"\nprint(x)\n{grammar.END_OF_CODE}", "1"),
    ]
    self.assertEqual(reward_forms.texts_of(nodes), ["x = 1", "print(x)\n\n1"])

  def test_names(self):
    for name in reward_forms.FORMS:
      self.assertEqual(reward_forms.split(f"{name}:a/b"), (name, "a/b"))
      self.assertFalse(plugins.names_one(f"{name}:folder"))
    for name in ("a/b", "gs://a/b", "module:function", "trl"):
      self.assertEqual(reward_forms.split(name), ("", name))


if __name__ == "__main__":
  absltest.main()
