"""Parses verbal answers: phrases, times of day, dates, yes and no.

Standard library only: it runs in grader workers too.
"""

import re

# Phrases of equal meaning; `_normalised` removes articles and plurals.
_PHRASES = {
  **dict.fromkeys(
    (
      "no solution,no real solution,no such number,none exist,there is no "
      "solution,there are no solution,empty set,emptyset,has no solution,"
      "no answer exist,there are no real solution,\\{\\}"
    ).split(","),
    r"\emptyset",
  ),
  **dict.fromkeys(
    (
      "does not exist,dne,undefined,do not exist,limit does not exist,not "
      "defined,is undefined"
    ).split(","),
    "undefined",
  ),
  **dict.fromkeys(
    "all real number,all real,real number,any real number,every real number,"
    "all real value".split(","),
    r"\mathbb{R}",
  ),
  **dict.fromkeys("all integer,integer,any integer".split(","), r"\mathbb{Z}"),
  **dict.fromkeys("infinity,inf,positive infinity".split(","), r"\infty"),
  **dict.fromkeys("-infinity,-inf,negative infinity".split(","), r"-\infty"),
}
_NUMERALS = {
  word: str(number)
  for number, word in enumerate(
    "zero one two three four five six seven eight nine ten eleven "
    "twelve".split()
  )
}
_YES_OR_NO = re.compile(r"(?:yes|no|true|false)\b\W+[a-z]", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_][^\W\d_]*(?:[\s,'.!()-]+[\w%$]+)*[\s.!?)]*")
_MONTHS = (
  r"(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)"
  r"(?:uary|ruary|ch|il|ust|ember|ober)?"
)


def phrase_to_latex(text: str) -> str | None:
  """Returns the LaTeX that a phrase stands for, None for other texts."""
  return _PHRASES.get(_normalised(text))


def _normalised(text: str) -> str:
  words = text.lower().replace("the ", "").replace("(s)", "").split()
  return " ".join(word.rstrip("s.,!") for word in words)


_PHRASES = {_normalised(key): latex for key, latex in _PHRASES.items()}


def is_yes_or_no(text: str) -> bool:
  """Returns whether a text is yes or no with a sentence about it."""
  return bool(_YES_OR_NO.match(text))


def is_words(text: str) -> bool:
  """Returns whether a text holds words and numbers but no mathematics."""
  return bool(_WORDS.fullmatch(text))


def words(text: str) -> str | None:
  """Returns words in lower case without an article; None for mathematics.

  A numeral becomes a number; "June 4th" and "4 June" become the same.
  """
  text = text.strip(" .!\"'")
  if not re.search(r"(?<!\\)(?<![a-zA-Z])[A-Za-z]{2,}", text) or re.search(
    r"[\\^_=+*/{}\[\]|<>]", text
  ):
    return None
  has_month = re.search(rf"\b{_MONTHS}\b", text.lower())
  if not _WORDS.fullmatch(text) and not has_month:
    return None
  spoken = re.sub(r"(?<=\d)(?:st|nd|rd|th)\b", "", text.lower())
  words = re.findall(r"[\w'%$.]+", spoken.replace("-", " "))
  words = [word.strip(".'") for word in words]
  if len(words) > 1 and words[0] in ("a", "an", "the"):
    words = words[1:]
  if has_month and len(words) > 1:
    words = sorted(word[:3] if word.isalpha() else word for word in words)
  if len(words) == 1:
    return _NUMERALS.get(words[0], words[0])
  return " ".join(words)


def same(one: str, two: str) -> bool:
  """Compares results of `words`; ignores plurals and what follows a yes."""
  if one == two:
    return True
  first, second = one.split(), two.split()
  if not first or not second:
    return False
  if first[0] == second[0] and first[0] in ("yes", "no", "true", "false"):
    short, long = sorted((first, second), key=len)
    if len(short) == 1:
      return not {"and", "or"} & set(long)
  trimmed = [[word.rstrip("s") for word in each] for each in (first, second)]
  return trimmed[0] == trimmed[1] and len(first) > 1


def clock(text: str) -> int | None:
  """Parses a time of day with "am" or "pm" to minutes after midnight."""
  match = re.fullmatch(
    r"(\d{1,2})(?:\s*:\s*(\d\d))?\s*(?:([ap])\.?\s*m\.?|(noon|midnight))",
    text.strip().lower(),
  )
  if not match or int(match[1]) > 12:
    return None
  half = match[3] or {"noon": "p", "midnight": "a"}[match[4]]
  return (
    int(match[1]) % 12 * 60 + int(match[2] or 0) + 720 * (half == "p") or 1440
  )
