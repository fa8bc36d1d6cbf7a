r"""Renders prompts, for training and inference alike.

`few_shot` shows the step grammar to a model that was not trained on it.
"""

import json
from collections.abc import Callable, Sequence

from rstar_jax.config import plugins
from rstar_jax.steps import grammar
from rstar_jax.steps.grammar import ASSISTANT, USER
from rstar_jax.types import Prefix

# Comment of the step that closes the code.
LAST_STEP = "# Now print the final answer"

INSTRUCTION = f"""\
You are an agent skilled in mathematics and in Python. Solve the question step \
by step, in three parts: the code, its output, and the answer.
Do all calculation in Python, not in your head. A step is a short comment that \
says what is done and why, each line of it beginning with #, and the few lines \
of code that do it; it ends with {grammar.END_OF_STEP}. You may import math, \
sympy and numpy. The last step has the comment "{LAST_STEP}", prints \
the result and ends with {grammar.END_OF_CODE}. The interpreter then shows \
what was printed, between {grammar.OUTPUT} and {grammar.END_OF_OUTPUT}. Say \
the final answer in one sentence, between {grammar.ANSWER} and \
{grammar.END_OF_ANSWER}, with its value, and no unit, in \\boxed{{}}.
Two questions are solved below. Solve the third in the same way."""

# A question, and the node texts of its solution.
Example = tuple[str, Prefix]
# A word problem and an algebra problem.
DEMONSTRATIONS: tuple[Example, ...] = (
  (
    "A baker fills 3 trays with 12 rolls each. She sells 20 rolls in the "
    "morning, and half of the rest after lunch. How many rolls are left?",
    (
      "<code>\n# The baker starts with 3 trays of 12 rolls\n"
      "rolls = 3 * 12\n<end_of_step>",
      "\n\n# She sells 20 of them in the morning\n"
      "after_morning = rolls - 20\n<end_of_step>",
      "\n\n# She sells half of the rest after lunch, and the other half stays\n"
      "left = after_morning - after_morning // 2\n<end_of_step>",
      grammar.with_output(f"\n\n{LAST_STEP}\nprint(left)\n<end_of_code>", "8"),
      "<answer>There are \\boxed{8} rolls left.<end_of_answer>",
    ),
  ),
  (
    "What is the sum of the squares of the solutions of $2x^2 - 5x - 3 = 0$?",
    (
      "<code>\n# Solve the equation exactly\n"
      "from sympy import Eq, solve, symbols\n"
      "x = symbols('x')\n"
      "solutions = solve(Eq(2 * x**2 - 5 * x - 3, 0), x)\n<end_of_step>",
      "\n\n# Add up the squares of the solutions\n"
      "total = sum(each**2 for each in solutions)\n<end_of_step>",
      grammar.with_output(
        f"\n\n{LAST_STEP}\nprint(total)\n<end_of_code>", "37/4"
      ),
      "<answer>The sum of the squares is \\boxed{\\frac{37}{4}}."
      "<end_of_answer>",
    ),
  ),
)


# Question -> the text that precedes the first step of its solution.
Prompt = Callable[[str], str]


def prompt(question: str) -> str:
  """Returns the text that precedes the first step.

  The released code (microsoft/rStar, branch rStar-math) trains with this text
  and infers with one more line break; here both use this function.
  """
  return (
    f"{USER}:\n{question}\n{ASSISTANT}: "
    "Let's think step by step and solve the problem with code."
  )


def checked(plugin: plugins.Plugin) -> Prompt:
  """Returns a prompt plugin that is checked whenever it is called.

  It raises PluginError unless its text contains the question.
  """

  def render(question: str) -> str:
    text = plugin(question)
    if not isinstance(text, str) or question not in text:
      raise plugin.wrong(
        f"a text that holds the question {plugins.shown(question)}",
        plugins.shown(text),
      )
    return text

  return render


def chat_template(render: Prompt = prompt, *, bos: bool = False) -> str:
  """Returns the Jinja template that renders a user's message as a prompt.

  With it a server with a chat interface prompts the policy as in training. An
  assistant's message is the solution that follows the prompt.

  Args:
    render: the prompt.
    bos: whether the prompt begins with the begin-of-text token.
  """
  question = "{{ message['content'] }}"
  if render is prompt:
    head, tail = prompt(question).split(f"{ASSISTANT}:")
    answer = f"{ASSISTANT}:{tail}"
  else:
    # It may show the question twice.
    *before, after = map(_literal, render(question).split(question))
    head, answer = question.join([*before, ""]), after
  return (
    ("{{ bos_token }}" if bos else "") + "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    f"{answer}{{{{ message['content'] }}}}{{{{ eos_token }}}}"
    "{% else %}"
    f"{head}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    f"{answer}"
    "{% endif %}"
  )


def _literal(text: str) -> str:
  """Returns Jinja that renders a text literally, braces included."""
  return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"


def few_shot(
  question: str,
  instruction: str = INSTRUCTION,
  examples: Sequence[Example] = DEMONSTRATIONS,
) -> str:
  """Returns a prompt for a model not trained on the step grammar.

  It has an instruction, solved examples and the question; `<code>` follows.
  Solutions have the same form as those after `prompt`, so that one model's
  solutions can train another.
  """
  shown = "\n\n".join(_ask(each) + "".join(nodes) for each, nodes in examples)
  return f"{instruction}\n\n{shown}\n\n{_ask(question)}"


def _ask(question: str) -> str:
  return f"Question: {question}\nSolution:\n"
