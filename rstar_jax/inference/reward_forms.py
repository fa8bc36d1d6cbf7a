r"""The forms in which published reward models read a solution.

A form turns a question and steps into the ids of a *path*, at whose last token
the newest step is valued. Models are causal, so the value that the authors read
at a step's token within a whole solution is the value at the end of the path up
to that token. Each form follows its authors' recipe.

A step is a text: the code or the answer without our markers, and after the code
what the interpreter printed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from rstar_jax.hf.reward_heads import Kind
from rstar_jax.steps import grammar
from rstar_jax.steps.tokenizer import HfTokenizer

_SYSTEM = (
  "Please reason step by step, and put your final answer within \\boxed{}."
)
_SEPARATOR = "<extra_0>"
_TAG = "ки"
_GOOD, _BAD = "+", "-"

Read = Callable[[HfTokenizer, str, Sequence[str]], list[int]]


@dataclasses.dataclass(frozen=True)
class Form:
  """How a reward model reads.

  Attributes:
    read: returns a path's ids by the tokenizer, the question and the texts of
      at least one step.
    answers: returns the ids of the tokens with which a causal model answers
      that a step is good, and bad; None for a model with a head of its own.
    whole: whether it reads to the end of a dialogue, and not to a step's token.
  """

  read: Read
  answers: Callable[[HfTokenizer], tuple[int, int]] | None = None
  whole: bool = False


def texts_of(nodes: Sequence[str]) -> list[str]:
  """Returns the texts of steps: those of nodes without the markers."""
  return [grammar.MARKER.sub("", node).strip() for node in nodes]


def dialogue(
  tokenizer: HfTokenizer, question: str, steps: Sequence[str]
) -> list[int]:
  """Reads a solution as the assistant's turn, to the dialogue's end.

  A template may add text at the end, so that a step shares only the dialogue
  before it with the next one. Without a template there is a blank line between
  question and solution.
  """
  solution = "\n\n".join(steps)
  turns = [("user", question), ("assistant", solution)]
  chat = tokenizer.chat(turns)
  return tokenizer.encode(chat or f"{question}\n\n{solution}")


def separated(
  tokenizer: HfTokenizer, question: str, steps: Sequence[str]
) -> list[int]:
  """Reads the assistant's turn with <extra_0> after each step.

  As the model card of Qwen2.5-Math-PRM-7B has it.
  """
  chat = tokenizer.chat(
    [
      ("system", _SYSTEM),
      ("user", question),
      ("assistant", "".join(step + _SEPARATOR for step in steps)),
    ]
  )
  ids = tokenizer.encode(_templated(chat))
  return _up_to(ids, tokenizer.encode(_SEPARATOR)[0])


def pieces(
  tokenizer: HfTokenizer,
  question: str,
  steps: Sequence[str],
  *,
  separator: str = "\n",
) -> list[int]:
  """Reads the question and the steps, each with a separator after it.

  As TRL's PRMTrainer encodes them, one by one.
  """
  ids = [*_begin(tokenizer), *tokenizer.encode(question)]
  for step in steps:
    ids += [*tokenizer.encode(step), *tokenizer.encode(separator)]
  return ids


def lines(
  tokenizer: HfTokenizer, question: str, steps: Sequence[str]
) -> list[int]:
  """Reads the question and lines, each with the token of a new line.

  As in Skywork's skywork-o1-prm-inference, to which each line is a step: a step
  of several lines is valued at its last.
  """
  ids = [*_begin(tokenizer), *tokenizer.encode(f"{question}\n")]
  end = tokenizer.encode("\n")[-1]
  for line in "\n".join(steps).split("\n"):
    ids += [*tokenizer.encode(line), end]
  return ids


def tagged(
  tokenizer: HfTokenizer, question: str, steps: Sequence[str]
) -> list[int]:
  """Reads "QUESTION Step 1: ... ки\\nStep 2: ... ки".

  As the model card of math-shepherd-mistral-7b-prm has it. A step that does not
  begin so gets its "Step 1: ".
  """
  numbered = [
    step if step[:4].lower() == "step" else f"Step {number}: {step}"
    for number, step in enumerate(steps, 1)
  ]
  solution = "\n".join(f"{step} {_TAG}" for step in numbered)
  ids = [*tokenizer.bos_ids, *tokenizer.encode(f"{question} {solution}")]
  return _up_to(ids, tokenizer.encode(_TAG)[-1])


def turns(
  tokenizer: HfTokenizer, question: str, steps: Sequence[str]
) -> list[int]:
  """Reads a dialogue in which each step is asked about, and "+" the answer.

  As in RLHFlow's prm_evaluate.py: the next answer would be of the last step.
  """
  first, *rest = steps
  said = [("user", f"{question} {first}")]
  for step in rest:
    said += [("assistant", _GOOD), ("user", step)]
  return tokenizer.encode(_templated(tokenizer.chat(said, asks=True)))


def _answers_of_shepherd(tokenizer: HfTokenizer) -> tuple[int, int]:
  # After a space, as the tag is.
  good, bad = tokenizer.encode(f"{_GOOD} {_BAD}")[-2:]
  return good, bad


def _answers_of_turns(tokenizer: HfTokenizer) -> tuple[int, int]:
  return tokenizer.encode(_GOOD)[-1], tokenizer.encode(_BAD)[-1]


# By name, as before the colon in math_shepherd:OWNER/NAME.
FORMS: Mapping[str, Form] = {
  "outcome": Form(dialogue, whole=True),
  "qwen": Form(separated),
  "trl": Form(pieces),
  "skywork": Form(lines),
  "math_shepherd": Form(tagged, _answers_of_shepherd),
  "rlhflow": Form(turns, _answers_of_turns),
}
# What the head says of the form.
_BY_KIND: Mapping[Kind, str] = {
  "outcome": "outcome",
  "qwen_rm": "outcome",
  "qwen": "qwen",
  "steps": "trl",
  "skywork": "skywork",
}


def split(name: str) -> tuple[str, str]:
  """Returns the form and the folder of FORM:FOLDER; "" for the folder's own."""
  form, colon, folder = name.partition(":")
  return (form, folder) if colon and form in FORMS else ("", name)


def of(kind: Kind) -> Form | None:
  """Returns the form of a kind of head; None if that does not tell."""
  return FORMS.get(_BY_KIND.get(kind, ""))


def _begin(tokenizer: HfTokenizer) -> list[int]:
  return [] if tokenizer.bos_id is None else [tokenizer.bos_id]


def _templated(chat: str | None) -> str:
  if chat is None:
    raise ValueError(
      "the reward model's tokenizer has no chat template, and its form is a "
      "dialogue: add chat_template.jinja to its folder"
    )
  return chat


def _up_to(ids: Sequence[int], last: int) -> list[int]:
  """Returns ids up to the last one of that value."""
  return list(ids[: len(ids) - ids[::-1].index(last)])
