"""What lm-evaluation-harness is given; `make harness` runs the real one."""

import atexit
import pathlib
import sys
import types
from unittest import mock

from absl.testing import absltest

from rstar_jax.pipeline import solve
from rstar_jax.tools import harness
from tests.pipeline import evaluate_test

PROMPT = "Q: one?\nA: 1\n\nQ: four\nA:"


def request(doc, prompt=PROMPT):
  return types.SimpleNamespace(doc=doc, args=(prompt, {"until": ["Q:"]}))


class TextTest(absltest.TestCase):
  def test_the_question_is_the_row_s(self):
    rows = [
      {"question": "four", "answer": "4"},
      {"problem": "four", "solution": "It is \\boxed{4}."},
      {"query": " four ", "response": "The answer is: 4"},
    ]
    for row in rows:
      self.assertEqual(harness.asked(row, PROMPT), "four")
    self.assertEqual(harness.asked({"text": "four"}, PROMPT), PROMPT)

  def test_the_answer_is_last(self):
    solution = solve.Solution(("a = 4\n", "print(a)\n"), "4", None)
    self.assertEqual(
      harness.written(solution),
      "a = 4\nprint(a)\nThe answer is 4.\n#### 4",
    )
    self.assertEqual(harness.written(None), "")


class ModelTest(evaluate_test.SolvingCase):
  def test_equal_questions_are_searched_once(self):
    self.finish(1)
    requests = [
      request({"question": each, "answer": "0"})
      for each in ("four", "two", "four")
    ]
    texts = harness.answer_all(self.context, 1, requests)
    self.assertEqual(texts[0], texts[2])
    for question, text in (("four", texts[0]), ("two", texts[1])):
      solution = solve.solve(self.context, 1, question)
      self.assertEqual(text, harness.written(solution))
      self.assertEndsWith(text, f"#### {solution.answer}")
    for call in self.device.expanded:
      self.assertLessEqual(call.count("four"), 1)

  def test_what_the_harness_sees(self):
    """With stand-ins for the two names that are taken from it."""
    registered = {}

    def register_model(name):
      return lambda cls: registered.setdefault(name, cls)

    modules = {
      "lm_eval": types.ModuleType("lm_eval"),
      "lm_eval.api": types.ModuleType("lm_eval.api"),
      "lm_eval.api.model": types.ModuleType("lm_eval.api.model"),
      "lm_eval.api.registry": types.ModuleType("lm_eval.api.registry"),
    }
    modules["lm_eval.api.model"].LM = type("LM", (), {})
    modules["lm_eval.api.registry"].register_model = register_model
    with mock.patch.dict(sys.modules, modules):
      model_class = harness.define_model()
    self.assertEqual(registered, {"rstar": model_class})
    file = pathlib.Path(self.folder / "config.py")
    source = self.config.train.source
    file.write_text(
      "from tests import tiny_run\n"
      "def get_config(arg=''):\n"
      f"  return tiny_run.make_config({source!r}, {source!r})\n"
    )
    workdir = self.folder / "harness"
    with self.assertRaisesRegex(ValueError, "there is no run in"):
      model_class(f"{file}", str(workdir))
    self.assertFalse(workdir.exists())
    with mock.patch.object(atexit, "register") as register:
      model = model_class(f"{file}", str(workdir), round=0, batch_size=1)
    text = model.generate_until([request({"question": "two", "answer": "2"})])
    self.assertRegex(text[0], r"#### [2-6]$")
    with self.assertRaisesRegex(NotImplementedError, "generate_until"):
      model.loglikelihood([])
    # The harness closes nothing.
    for (close, *arguments), _ in reversed(register.call_args_list):
      close(*arguments)
    with self.assertRaisesRegex(RuntimeError, "closed"):
      model._context.sandbox.run([["print(5)"]])


if __name__ == "__main__":
  absltest.main()
