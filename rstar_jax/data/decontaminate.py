"""Finds training problems that occur in an evaluation set, with a report.

It does if it shares n consecutive words with an evaluation question, or, if it
is shorter, has the same words. GPT-3 (Brown et al. 2020, appendix C) and
Qwen2.5-Math (Yang et al. 2024) use n = 13.
"""

import collections
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
# Chinese, Japanese and Thai, which have no spaces between words.
_SPACELESS = (
  "\u0e00-\u0e4f\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
  "\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af"
)
_WORD = re.compile(rf"[^\W_{_SPACELESS}]+|(?!\W)[{_SPACELESS}]")


def words_of(question: str) -> list[str]:
  """Returns the words of a question: runs of letters and digits, case folded.

  Punctuation and formatting commands of LaTeX are dropped: the words of
  "A fraction: $\\dfrac{x}{2}$." are a, fraction, frac, x and 2. Each character
  of Chinese, Japanese and Thai is a word.
  """
  text = _COMMA.sub("", question.casefold())
  return _WORD.findall(_FORMATTING.sub(" ", text))


class Screen:
  """Tells which questions are in an evaluation set, and reports them."""

  def __init__(self, held_out: Mapping[str, Sequence[Problem]], ngram: int):
    """Reads the evaluation sets.

    Args:
      held_out: evaluation problems by the name of their set.
      ngram: n, in words, at least 1.

    Raises:
      ValueError: ngram is below 1.
    """
    if ngram < 1:
      raise ValueError(f"ngram={ngram} must be at least 1")
    self._ngram = ngram
    self._sizes = {name: len(each) for name, each in held_out.items()}
    self._places = _places(held_out, ngram)
    self._seen = self._dropped = 0
    self._of_set: collections.Counter[str] = collections.Counter()
    # By (id, set): several rows may have one question.
    self._matches: dict[tuple[str, str], dict[str, str]] = {}

  def holds(self, id_: str, question: str) -> bool:
    """Returns whether a question shares words with a set, and notes it.

    Args:
      id_: of the question, for the report.
      question: its text.
    """
    matched: dict[str, dict[str, str]] = {}
    for gram in _grams(question, self._ngram):
      for name, held_out_id in self._places.get(gram, ()):
        matched.setdefault(
          name,
          {"id": id_, "set": name, "held_out_id": held_out_id, "words": gram},
        )
    for name, match in matched.items():
      self._matches.setdefault((id_, name), match)
    self._of_set.update(matched.keys())
    self._seen += 1
    self._dropped += bool(matched)
    return bool(matched)

  def report(self) -> dict[str, Any]:
    """Returns what was asked for, as JSON-able types.

    Returns:
      ngram; problems, the number of questions; dropped, of those in a set; sets
      {name: {"problems", "dropped"}}; and matches, one per id and set that it
      occurs in: {"id", "set", "held_out_id", "words": the first shared n-gram}.
    """
    return {
      "ngram": self._ngram,
      "problems": self._seen,
      "dropped": self._dropped,
      "sets": {
        name: {"problems": size, "dropped": self._of_set[name]}
        for name, size in self._sizes.items()
      },
      "matches": list(self._matches.values()),
    }


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
