"""Drops training problems that occur in an evaluation set, with a report.

A problem is dropped if it shares n consecutive words with an evaluation
question, or, if it is shorter, has the same words. GPT-3 (Brown et al. 2020,
appendix C) and Qwen2.5-Math (Yang et al. 2024) use n = 13.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rstar_jax.types import Problem

# (name of an evaluation set, id of a problem in it).
_Place = tuple[str, str]

# LaTeX for formatting alone: spaces, sizes of brackets and of fractions.
_FORMATTING = re.compile(
  r"\\(?:left|right|displaystyle|q?quad)(?![a-z])|(?<=\\)[dtc](?=frac)"
)
# 1,234 is one word, in LaTeX's notations too.
_COMMA = re.compile(r"(?<=\d)(?:,(?:\\!)?|\{,\})(?=\d{3})")
_WORD = re.compile(r"[^\W_]+")


def words_of(question: str) -> list[str]:
  """Returns the words of a question: runs of letters and digits, case folded.

  Punctuation and formatting commands of LaTeX are dropped: the words of
  "A fraction: $\\dfrac{x}{2}$." are a, fraction, frac, x and 2.
  """
  text = _COMMA.sub("", question.casefold())
  return _WORD.findall(_FORMATTING.sub(" ", text))


def decontaminate(
  problems: Sequence[Problem],
  held_out: Mapping[str, Sequence[Problem]],
  ngram: int,
) -> tuple[list[Problem], dict[str, Any]]:
  """Drops the problems that share words with an evaluation set.

  Args:
    problems: training problems.
    held_out: evaluation problems by the name of their set.
    ngram: n, in words, at least 1.

  Returns:
    The problems that are kept, in order, and a JSON-able report: ngram,
    problems, dropped, sets {name: {"problems", "dropped"}}, and matches, one
    per dropped problem and set that it occurs in: {"id", "set", "held_out_id",
    "words": the first shared n-gram}.

  Raises:
    ValueError: ngram is below 1.
  """
  if ngram < 1:
    raise ValueError(f"ngram={ngram} must be at least 1")
  places = _places(held_out, ngram)
  kept, matches = [], []
  for problem in problems:
    matched: dict[str, dict[str, str]] = {}
    for gram in _grams(problem.question, ngram):
      for name, held_out_id in places.get(gram, ()):
        matched.setdefault(
          name,
          {
            "id": problem.id,
            "set": name,
            "held_out_id": held_out_id,
            "words": gram,
          },
        )
    matches += matched.values()
    if not matched:
      kept.append(problem)
  report = {
    "ngram": ngram,
    "problems": len(problems),
    "dropped": len(problems) - len(kept),
    "sets": {
      name: {
        "problems": len(each),
        "dropped": sum(match["set"] == name for match in matches),
      }
      for name, each in held_out.items()
    },
    "matches": matches,
  }
  return kept, report


def _places(
  held_out: Mapping[str, Sequence[Problem]], ngram: int
) -> dict[str, tuple[_Place, ...]]:
  """Maps each n-gram to the first problem of each set that contains it."""
  places: dict[str, tuple[_Place, ...]] = {}
  for name, problems in held_out.items():
    for problem in problems:
      place = ((name, problem.id),)  # One tuple for all of its n-grams.
      for gram in _grams(problem.question, ngram):
        known = places.get(gram)
        if known is None:
          places[gram] = place
        elif known[-1][0] != name:
          places[gram] = known + place
  return places


def _grams(question: str, ngram: int) -> Iterator[str]:
  """Yields a question's n-grams; all its words if they are fewer than n."""
  words = words_of(question)
  if 0 < len(words) < ngram:
    yield " ".join(words)
  for start in range(len(words) - ngram + 1):
    yield " ".join(words[start : start + ngram])
