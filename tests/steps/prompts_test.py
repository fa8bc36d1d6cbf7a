"""Tests of the prompts; the demonstrations are run."""

import jinja2
from absl.testing import absltest, parameterized

from rstar_jax.config import plugins
from rstar_jax.grading import answers
from rstar_jax.sandbox.pool import Sandbox
from rstar_jax.steps import grammar, prompts

QUESTION = "How many?\nSolution:\nNone."


class PromptTest(absltest.TestCase):
  def test_is_what_the_shipped_base_model_was_trained_on(self):
    self.assertEqual(
      prompts.prompt("How many?"),
      "<|user|>:\nHow many?\n<|assistant|>: Let's think step by step and solve "
      "the problem with code.",
    )


def with_braces(question):
  return f'\n{{% x %}} {{{{ y }}}} "q" \u00e9\n{question}\n\nGo:\n'


class OwnPromptTest(parameterized.TestCase):
  def test_is_checked(self):
    render = prompts.checked(plugins.wrap(with_braces, "task.prompt"))
    self.assertEqual(render("How?"), with_braces("How?"))
    for wrong in (None, "no question", b"How?"):

      def own(question, wrong=wrong):
        return wrong

      with self.assertRaisesRegex(
        plugins.PluginError,
        "^task.prompt='.*own' must return a text that holds the question "
        "'How\\?', not",
      ):
        prompts.checked(plugins.wrap(own, "task.prompt"))("How?")

  @parameterized.parameters(
    with_braces, lambda q: f"{q}\nAgain {{{{: {q}\nA:", lambda q: q + q
  )
  def test_the_chat_template_renders_it(self, render):
    template = jinja2.Environment(
      trim_blocks=True, lstrip_blocks=True
    ).from_string(prompts.chat_template(render))
    said = [{"role": "user", "content": "How {{ many }}?"}]
    self.assertEqual(
      template.render(messages=said, add_generation_prompt=True),
      render("How {{ many }}?"),
    )
    both = [*said, {"role": "assistant", "content": "7"}]
    self.assertEqual(
      template.render(messages=both, eos_token="<eos>"),
      render("How {{ many }}?") + "7<eos>",
    )


class FewShotTest(absltest.TestCase):
  def test_demonstrations_are_solutions_in_the_grammar(self):
    self.assertLen(prompts.DEMONSTRATIONS, 2)
    for _, nodes in prompts.DEMONSTRATIONS:
      self.assertGreater(len(nodes), 2)
      for index, node in enumerate(nodes):
        # What the model writes: the interpreter's output is not its own.
        written = node.partition("\n" + grammar.OUTPUT)[0]
        (finish,) = [
          finish
          for marker, finish in grammar.FINISHES.items()
          if written.endswith(marker)
        ]
        with self.subTest(node):
          self.assertIsNone(
            grammar.problem_with(nodes[:index], written, finish)
          )
      # The last of the code is known by its comment, and nothing else has it.
      marked = [prompts.LAST_STEP in node for node in nodes]
      self.assertEqual(marked, [False] * (len(nodes) - 2) + [True, False])

  def test_demonstrations_print_what_they_show(self):
    with Sandbox(workers=1) as sandbox:
      for _, nodes in prompts.DEMONSTRATIONS:
        (result,) = sandbox.run([grammar.program(nodes)])
        self.assertEqual(result.status, "ok")
        closed = nodes[-2].partition("\n" + grammar.OUTPUT)[0]
        self.assertEqual(nodes[-2], grammar.with_output(closed, result.stdout))

  def test_demonstrations_are_right(self):
    # 3 * 12 - 20 = 16, half of it; 3 and -1/2 solve the equation.
    golds = ("8", "9 + 1/4")
    for gold, (_, nodes) in zip(golds, prompts.DEMONSTRATIONS, strict=True):
      self.assertTrue(answers.equal(gold, answers.final_answer(nodes[-1])))

  def test_parts_and_their_order(self):
    text = prompts.few_shot(QUESTION)
    self.assertEqual(text, prompts.few_shot(QUESTION))
    (first, nodes_1), (second, nodes_2) = prompts.DEMONSTRATIONS
    parts = (first, *nodes_1, second, *nodes_2, QUESTION)
    places = [text.index(part) for part in parts]
    self.assertEqual(places, sorted(places))
    self.assertEqual(text.count("Question: "), 3)
    self.assertEndsWith(text, f"Question: {QUESTION}\nSolution:\n")
    # What follows `Solution:` in the demonstrations is what the model writes.
    self.assertEqual(text.count("Solution:\n<code>\n"), 2)

  def test_names_every_marker_that_is_written(self):
    instruction = prompts.few_shot("").partition("Question: ")[0]
    for marker in (*grammar.FINISHES, grammar.OUTPUT, grammar.ANSWER):
      self.assertIn(marker, instruction)
    for word in ("math, sympy and numpy", "\\boxed{}", prompts.LAST_STEP):
      self.assertIn(word, instruction)


if __name__ == "__main__":
  absltest.main()
