"""Programming: the question asks for a function, and tests judge it.

Problems come from any source with rows in HumanEval's form, or with `tests`.
"""

from rstar_jax.steps import grammar
from rstar_jax.steps.prompts import LAST_STEP
from rstar_jax.tasks.task import Task

INSTRUCTION = f"""\
You are an agent skilled in Python. Write the function that is begun in the \
question, in three parts: the code, its output, and the answer.
A step is a short comment that says what is done and why, each line of it \
beginning with #, and the few lines of code that do it; each step is complete \
Python by itself and ends with {grammar.END_OF_STEP}. Import what you need. \
Try the function on an example. The last step has the comment "{LAST_STEP}", \
prints what came out and ends with {grammar.END_OF_CODE}. The interpreter then \
shows what was printed, between {grammar.OUTPUT} and \
{grammar.END_OF_OUTPUT}. Say which function solves the question in one \
sentence, between {grammar.ANSWER} and {grammar.END_OF_ANSWER}, with its \
name in \\boxed{{}}.
Two questions are solved below. Solve the third in the same way."""

EXAMPLES = (
  (
    "def count_vowels(text: str) -> int:\n"
    '    """Returns how many letters of a text are vowels, in either case.\n\n'
    "    >>> count_vowels('Aloud')\n    3\n"
    '    """',
    (
      "<code>\n# Lower case makes one set of vowels enough\n"
      "def count_vowels(text: str) -> int:\n"
      "  return sum(letter in 'aeiou' for letter in text.lower())\n"
      "<end_of_step>",
      grammar.with_output(
        f"\n\n{LAST_STEP}\nprint(count_vowels('Aloud'))\n<end_of_code>", "3"
      ),
      "<answer>The function is \\boxed{count_vowels}.<end_of_answer>",
    ),
  ),
  (
    "from typing import List\n\n\n"
    "def halves(numbers: List[int]) -> List[float]:\n"
    '    """Returns half of each even number, in order of size.\n\n'
    "    >>> halves([8, 3, 2])\n    [1.0, 4.0]\n"
    '    """',
    (
      "<code>\n# The type of the arguments is imported\n"
      "from typing import List\n<end_of_step>",
      "\n\n# Keep the even numbers, halve them, and sort last\n"
      "def halves(numbers: List[int]) -> List[float]:\n"
      "  return sorted(each / 2 for each in numbers if each % 2 == 0)\n"
      "<end_of_step>",
      grammar.with_output(
        f"\n\n{LAST_STEP}\nprint(halves([8, 3, 2]))\n<end_of_code>",
        "[1.0, 4.0]",
      ),
      "<answer>The function is \\boxed{halves}.<end_of_answer>",
    ),
  ),
)

CODE = Task(instruction=INSTRUCTION, examples=EXAMPLES)
