r"""Reads rows whose question is a message: chats, and verl's rows.

| fields | whose | what |
| --- | --- | --- |
| messages | chats | [{"role", "content"}]: one question, one reply |
| conversations | ShareGPT | [{"from", "value"}]: likewise |
| prompt | verl, DAPO, TRL | a text, or messages: one question |
| completion | TRL | a text, or messages: one reply |
| reward_model.ground_truth | verl, DAPO | the answer, or a list of them |
| extra_info.question | verl | the question without an instruction |

Known instructions that a data set puts around each question, such as to box the
answer, are removed: solutions here have another form.
"""

from collections.abc import Collection, Mapping
from typing import Any

from rstar_jax import outside
from rstar_jax.data.rows import ProblemError

# Data sets' names of speakers.
_ROLES = {
  **dict.fromkeys(("user", "human"), "user"),
  **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
}
# Instructions of DAPO, verl, Eurus and Qwen before and after a question.
_BEFORE = (
  "Solve the following math problem step by step. The last line of your "
  "response should be of the form Answer: $Answer (without quotes) where "
  "$Answer is the answer to the problem.",
)
_AFTER = (
  'Remember to put your answer on its own line after "Answer:".',
  "Let's think step by step and output the final answer within \\boxed{}.",
  'Let\'s think step by step and output the final answer after "####".',
  'Let\'s think step by step and output the final answer after "####"',
  "Present the answer in LaTex format: \\boxed{Your answer}",
  "Please reason step by step, and put your final answer within \\boxed{}.",
)


def flat(row: Mapping[str, Any]) -> Mapping[str, Any]:
  """Returns a row with the texts of its messages as fields.

  Args:
    row: a row of any data set.

  Returns:
    The row, with "user" and, if there is a reply, "assistant" of a chat; with
    "prompt" and "completion" as texts; with "ground_truth", and "index" and
    "source", of verl. A row without messages stays as it is.

  Raises:
    ProblemError: the messages are not one question with at most one reply.
  """
  flat_row = dict(row)
  for name, keys in (
    ("messages", ("role", "content")),
    ("conversations", ("from", "value")),
  ):
    if name in row:
      flat_row |= _texts_by_role(row[name], name, keys)
      break
  for name, role in (("prompt", "user"), ("completion", "assistant")):
    if isinstance(row.get(name), list):
      texts = _texts_by_role(row[name], name, ("role", "content"), (role,))
      flat_row[name] = texts[role]
  rewarded = row.get("reward_model")
  if isinstance(rewarded, Mapping) and "ground_truth" in rewarded:
    flat_row |= _of_verl(row, rewarded["ground_truth"])
  extra = row.get("extra_info")
  bare_question = extra.get("question") if isinstance(extra, Mapping) else None
  for name in ("user", "prompt"):
    if isinstance(flat_row.get(name), str):
      within = (
        isinstance(bare_question, str)
        and bare_question
        and bare_question in flat_row[name]
      )
      flat_row[name] = (
        bare_question if within else _without_instructions(flat_row[name])
      )
  return flat_row


def _texts_by_role(
  messages: Any,
  name: str,
  keys: tuple[str, str],
  wanted: Collection[str] = ("user",),
) -> dict[str, str]:
  """Returns the user's and the assistant's text, one message each.

  Args:
    messages: a list of objects; an object alone counts as a list of one.
    name: the field's name, for error messages.
    keys: a message's fields: the speaker's, and the text's.
    wanted: speakers that must have a message.
  """
  said: dict[str, list[str]] = {}
  for each in messages if isinstance(messages, list) else [messages]:
    if not isinstance(each, Mapping) or not each.keys() >= set(keys):
      raise ProblemError(
        f"{name!r} holds {each!r:.60}, want objects with {' and '.join(keys)}"
      )
    who, text = each[keys[0]], each[keys[1]]
    who = _ROLES.get(who.lower() if isinstance(who, str) else "")
    if who is None:
      continue
    if not isinstance(text, str) or not text.strip():
      raise ProblemError(f"{name!r} has no text as {keys[1]!r} of the {who}")
    said.setdefault(who, []).append(text.strip())
  for who, texts in said.items():
    if len(texts) > 1:
      raise ProblemError(
        f"{name!r} has {len(texts)} of the {who}, want a question and a reply "
        "alone"
      )
  for who in wanted:
    if who not in said:
      what = "question" if who == "user" else "reply"
      raise ProblemError(f"{name!r} has none of the {who}, want a {what}")
  return {who: text for who, (text,) in said.items()}


def _of_verl(row: Mapping[str, Any], truth: Any) -> dict[str, Any]:
  """Returns the answer, the id and the source of a row of verl's form."""
  if isinstance(truth, str) and truth.lstrip()[:1] in ("[", "{"):
    # Some hold a list of one answer, or an object of tests, as JSON text.
    try:
      parsed = outside.parse(truth, strict=True)
    except outside.Bad:
      parsed = truth
    if isinstance(parsed, dict):
      truth = parsed
    elif isinstance(parsed, list) and all(isinstance(e, str) for e in parsed):
      truth = parsed
  if isinstance(truth, Mapping):
    truth = None
  fields = {"ground_truth": truth}
  extra = row.get("extra_info")
  index = extra.get("index") if isinstance(extra, Mapping) else None
  # A text, such as DAPO's, identifies the problem; a number is a position.
  if type(index) is str and "index" not in row:
    fields["index"] = index
  if isinstance(row.get("data_source"), str) and "source" not in row:
    fields["source"] = row["data_source"]
  return fields


def _without_instructions(question: str) -> str:
  """Returns a question without the known instructions around it."""
  text = question.strip()
  for each in _BEFORE:
    text = text.removeprefix(each).lstrip()
  for each in _AFTER:
    text = text.removesuffix(each).rstrip()
  return text or question
