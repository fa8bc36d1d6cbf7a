r"""Generates word problems by level: a data set that needs no download.

A problem is a set of quantities and a question. Each quantity is defined from
earlier ones by a relation, in the words of a family (`templates.py`). The level
is the number of reasoning steps: the quantities that the answer needs, plus one
if the question combines them. From level 3 on there are irrelevant facts; from
level 5 on the sentences are shuffled, in long problems by a few places only.

Splits differ in names, numbers and families:

  train       levels 1-6, families of group "train"
  worked      for the bootstrap model: nine tenths levels 1-4. Some problems
              have made-up nouns and verbs, since a reader must cope with new
              words. Solutions have injected errors (`relations.py`): about a
              third of them are right
  stretch     the same with more of the higher levels, for the last updates
  validation  levels 1-6, a quarter of it from a family of its own
  test        levels 1-6, a quarter of it from four families of its own
  test_long   levels 7-8, longer than any training problem

  long_validation, long_test
              levels 6-14: a policy that has read long_worked slips at a quarter
              of the steps, so that a search has something to decide
  long_train  the same, and levels 3-5; half of it is of levels 3-6, of which
              an untrained policy solves enough to learn from
  long_worked for the bootstrap model, levels 2-14; a quarter of the steps is
              wrong (`relations.habit`)

Answers are computed by exact arithmetic on the relations. Tests compare them
with a solver that reads the text alone, and run the solutions in the
sandbox; nothing here runs code.
"""

import dataclasses
import fractions
import functools
import random
import re

from rstar_jax import rng
from rstar_jax.data.synthetic import relations, solutions, templates
from rstar_jax.data.synthetic.solutions import Fact, Question, SolvedProblem
from rstar_jax.types import Problem

_EVEN = tuple((level, 1) for level in range(1, 7))
_LONG = tuple((level, 1) for level in range(6, 15))
LEVELS = {
  "train": _EVEN,
  "worked": ((1, 12), (2, 20), (3, 28), (4, 30), (5, 7), (6, 3)),
  "stretch": ((1, 1), (2, 2), (3, 4), (4, 5), (5, 5), (6, 5)),
  "validation": _EVEN,
  "test": _EVEN,
  "test_long": ((7, 1), (8, 1)),
  "long_worked": tuple((level, 1) for level in range(2, 15)),
  "long_train": tuple((level, 2 if level < 7 else 1) for level in range(3, 15)),
  "long_validation": _LONG,
  "long_test": _LONG,
}
SPLITS = tuple(LEVELS)
# The splits with injected errors, on which the bootstrap model trains.
_SLIPS = {
  "worked": relations.carelessness,
  "stretch": relations.carelessness,
  "long_worked": relations.habit,
}

# Names consist of two halves, so that names of the test splits are new while
# their halves are not.
_PEOPLE = (
  "Mi Ka Be Da No Ta Ri Su Ve Jo Pe Ha Le Ma Lo Si".split(),
  "ra na la lo vin ren sa mon tia ris dan ly".split(),
)
_PLACES = (
  "Ar Wa Do El Fa Hu Ke Li Or Ro Te Wi".split(),
  "ford ham wick port ley by den mont field gate".split(),
)
_PARTS = {
  (1, 2): "half",
  (1, 3): "a third",
  (1, 4): "a quarter",
  (2, 3): "two thirds",
  (3, 4): "three quarters",
  (1, 5): "a fifth",
  (2, 5): "two fifths",
}
_PERCENTS = (10, 20, 25, 30, 40, 50, 60, 75, 80)
_LARGEST = 2000
# The lowest levels with irrelevant facts, and with shuffled sentences.
_EXTRA_FROM = 3
_SHUFFLED_FROM = 5
# Share of the bootstrap's problems with made-up nouns and verbs.
_MADE_UP = 0.3
# Most draws of each quantity of a long problem until its value is allowed:
# without them, few attempts at so many quantities would succeed.
_TRIES = 20
# Most places by which sentences of a long problem move. Among a dozen in
# arbitrary order a small model does not find which can be computed next.
_REACH = 3
_SYLLABLES = "bli dra fe go hup jin kle mo ne plo qua ri sta tu vex wug".split()
_WORD = re.compile(r"(?<![A-Za-z])[a-z]{3,}")


def _group(split: str) -> str:
  """Returns the group whose names and numbers a split uses."""
  for group in ("validation", "test"):
    if group in split:
      return group
  return "train"


def _names(who: str, group: str) -> list[str]:
  """Returns a group's names: half for training, a quarter for each other."""
  firsts, rests = _PEOPLE if who == "people" else _PLACES
  wanted = {"train": (0, 1), "validation": (2,), "test": (3,)}[group]
  return [
    first + rest
    for i, first in enumerate(firsts)
    for j, rest in enumerate(rests)
    if (i + j) % 4 in wanted
  ]


def _number(random_: random.Random, group: str, low: int, high: int) -> int:
  """Draws a number; numbers from 11 on belong to one group by residue."""
  wanted = {"train": (0, 1, 2, 4, 5), "validation": (3,), "test": (6,)}[group]
  choices = [n for n in range(low, high) if n < 11 or n % 7 in wanted]
  return random_.choice(choices)


def _fact(
  random_: random.Random,
  family: templates.Family,
  group: str,
  x: str,
  known: list[Fact],
  first: bool,
  loose: frozenset[str],
) -> Fact | None:
  """Draws one quantity; None if its value is not allowed.

  Args:
    random_: the generator that is drawn from.
    family: the templates.
    group: group of splits whose numbers are used.
    x: name of the quantity.
    known: the quantities before it.
    first: whether it refers to none of them.
    loose: names that are preferred for references other than to the newest
      quantity; may be empty.
  """
  options = [r for r in family.says if (r in ("given", "product")) == first]
  if len(known) < 2:
    options = [r for r in options if r != "both"]
  relation = random_.choice(options)
  refers: list[Fact] = []
  if not first:
    # The newest quantity is the likeliest, which makes long chains.
    if family.chain or random_.random() < 0.6:
      refers.append(known[-1])
    else:
      refers.append(_preferred(random_, known, loose))
  if relation == "both":
    others = [fact for fact in known if fact.x != refers[0].x]
    refers.append(_preferred(random_, others, loose))
  values: dict[str, object] = {
    **dict(zip("yz", (fact.x for fact in refers), strict=False)),
    **_numbers(random_, group, relation),
  }
  meaning = relations.RELATIONS[relation]
  value = meaning.value(
    [fact.value for fact in refers], solutions.numbers(values)
  )
  whole = family.whole or value.denominator > 20
  if value <= 0 or value > _LARGEST or (whole and value.denominator != 1):
    return None
  return Fact(relation, x, values, value)


def _preferred(
  random_: random.Random, facts: list[Fact], loose: frozenset[str]
) -> Fact:
  """Draws one of the loose quantities; of all of them if none is loose."""
  return random_.choice([fact for fact in facts if fact.x in loose] or facts)


def _numbers(
  random_: random.Random, group: str, relation: str
) -> dict[str, object]:
  """Draws the numbers n and m of a relation, those that it has."""
  if relation == "given":
    return {"n": _number(random_, group, 11, 100)}
  if relation == "product":
    n = random_.randrange(2, 10)
    return {"n": n, "m": _number(random_, group, 3, 60)}
  if relation == "more":
    return {"n": _number(random_, group, 2, 100)}
  if relation == "fewer":
    return {"n": _number(random_, group, 2, 60)}
  if relation == "times":
    return {"n": random_.randrange(2, 8)}
  if relation == "part":
    n, m = random_.choice(list(_PARTS))
    return {"n": n, "m": m}
  if relation == "percent":
    return {"n": random_.choice(_PERCENTS)}
  return {}


def _loose(facts: list[Fact]) -> frozenset[str]:
  """Returns the quantities that nothing refers to."""
  used = {name for fact in facts for name in fact.needs}
  return frozenset(fact.x for fact in facts) - used


def _question(
  random_: random.Random, family: templates.Family, facts: list[Fact]
) -> Question | None:
  """Draws a question; None if there are too few quantities for it."""
  kind = "one"
  if random_.random() < 0.4:
    kind = random_.choice(list(family.asks))
  last = facts[-1]
  if kind == "one":
    return Question(kind, {"x": last.x}, (last.x,))
  if kind == "rate":
    n = random_.randrange(2, 10)
    return Question(kind, {"x": last.x, "n": n}, (last.x,))
  if len(facts) < 2:
    return None
  if kind == "total":
    count = min(len(facts), random_.choice((2, 2, 3)))
    chosen = [*random_.sample(facts[:-1], count - 1), last]
    random_.shuffle(chosen)
    names = [fact.x for fact in chosen]
    values = {
      "names": ", ".join(names[:-1]) + " and " + names[-1],
      "sum": " + ".join(names),
      "sum_but_last": " + ".join(names[:-1]),
    }
    return Question(kind, values, tuple(names))
  x, y = last, random_.choice(facts[:-1])
  if kind == "difference" and x.value < y.value:
    x, y = y, x
  return Question(kind, {"x": x.x, "y": y.x}, (x.x, y.x))


def _answer(
  question: Question, known: dict[str, fractions.Fraction]
) -> fractions.Fraction | None:
  """Computes the answer; None for a percentage that is not an integer."""
  named = [known[name] for name in question.names]
  if question.kind == "one":
    return named[0]
  meaning = relations.QUESTIONS[question.kind]
  answer = meaning.value(named, solutions.numbers(question.values))
  if question.kind == "percentage" and answer.denominator != 1:
    return None
  return answer


def _with_made_up_words(random_: random.Random, question: str) -> str:
  """Replaces nouns and verbs by made-up words, equal ones by equal ones."""
  new_words: dict[str, str] = {}

  def replace(match: re.Match) -> str:
    word = match.group()
    if word in templates.FUNCTION_WORDS:
      return word
    plural = "s" if word.endswith("s") else ""
    stem = word.removesuffix("s")
    if stem not in new_words:
      new_words[stem] = "".join(
        random_.sample(_SYLLABLES, random_.choice((1, 2)))
      )
    return new_words[stem] + plural

  return _WORD.sub(replace, question)


def _shuffled_near(
  random_: random.Random, sentences: list[str], spare: list[bool]
) -> list[str]:
  """Moves each sentence by a few places, and irrelevant ones anywhere."""
  places = [
    (random_.uniform(0, len(spare)) if each else i) + random_.uniform(0, _REACH)
    for i, each in enumerate(spare)
  ]
  order = sorted(range(len(sentences)), key=places.__getitem__)
  return [sentences[i] for i in order]


def _facts(
  random_: random.Random,
  split: str,
  family: templates.Family,
  level: int,
  extra: int,
) -> list[Fact] | None:
  """Draws `level` quantities and `extra` ones; None if one is not allowed."""
  group, long = _group(split), split.startswith("long_")
  names = random_.sample(_names(family.who, group), level + extra)
  facts: list[Fact] = []
  for index, name in enumerate(names):
    fresh = index == 0 or (
      not family.chain and index < 4 and random_.random() < 0.15
    )
    loose = _loose(facts) if long and index < level else frozenset()
    for _ in range(_TRIES if long else 1):
      fact = _fact(random_, family, group, name, facts, fresh, loose)
      if fact is not None:
        break
    else:
      return None
    facts.append(fact)
  return facts


def _text(
  random_: random.Random,
  split: str,
  family: templates.Family,
  level: int,
  facts: list[Fact],
  question: Question,
  needed: list[Fact],
) -> str:
  """Writes the sentences of the quantities, and the question about them."""
  sentences = [
    random_.choice(family.says[fact.relation]).format(
      x=fact.x,
      **fact.values,
      part=_PARTS.get((fact.values.get("n"), fact.values.get("m"))),
    )
    for fact in facts
  ]
  if level >= _SHUFFLED_FROM and not family.chain:
    if split.startswith("long_"):
      spare = [fact not in needed for fact in facts]
      sentences = _shuffled_near(random_, sentences, spare)
    else:
      random_.shuffle(sentences)
  asks = random_.choice(family.asks[question.kind])
  sentences.append(asks.format(**question.values))
  return " ".join(sentences)


def _attempt(
  random_: random.Random, split: str, family: templates.Family, level: int
) -> SolvedProblem | None:
  """Draws one problem; None if it does not fit the level."""
  extra = random_.choice((0, 0, 1, 2)) if level >= _EXTRA_FROM else 0
  facts = _facts(random_, split, family, level, extra)
  if facts is None:
    return None
  # The question asks for the deepest quantity; a chain ends with it.
  asked_from = facts[: level + (0 if family.chain else extra)]
  question = _question(random_, family, asked_from)
  if question is None:
    return None
  answer = _answer(question, {fact.x: fact.value for fact in facts})
  needed = solutions.needed(facts, question.names)
  if answer is None or answer <= 0:
    return None
  if len(needed) + (question.kind != "one") != level:
    return None
  text = _text(random_, split, family, level, facts, question, needed)
  slips = None
  if split in _SLIPS:
    slips = functools.partial(_SLIPS[split], random_)
    if random_.random() < _MADE_UP:
      text = _with_made_up_words(random_, text)
  try:
    bodies, result = solutions.solve(needed, question, slips)
  except ZeroDivisionError:
    return None
  problem = Problem(
    id="",
    question=text,
    answer=str(answer),
    source=f"synthetic/{family.name}",
    level=level,
  )
  printed = "answer" if question.kind != "one" else question.names[0]
  return SolvedProblem(
    problem,
    solutions.solution(bodies, printed, str(result)),
    tuple(facts),
    question,
  )


def generate(split: str, index: int, seed: int = 0) -> SolvedProblem:
  """Returns one problem of a split with its solution.

  Args:
    split: one of `SPLITS`.
    index: number of the problem, from 0, without an upper limit.
    seed: each seed gives another set of problems.

  Raises:
    ValueError: the split is unknown.
  """
  if split not in LEVELS:
    raise ValueError(
      f"unknown synthetic split {split!r}: use one of {', '.join(SPLITS)}"
    )
  random_ = random.Random(rng.seed_for(seed, "synthetic", split, index))
  group = _group(split)
  seen = [f for f in templates.FAMILIES if f.group == "train"]
  unseen = [f for f in templates.FAMILIES if f.group == group]
  from_unseen = group != "train" and index % 4 == 3
  levels, weights = zip(*LEVELS[split], strict=True)
  level = random_.choices(levels, weights)[0]
  while True:
    family = random_.choice(unseen if from_unseen else seen)
    drawn = _attempt(random_, split, family, level)
    if drawn is not None:
      name = f"{split}-{seed}-{index}"
      problem = dataclasses.replace(drawn.problem, id=name)
      return dataclasses.replace(drawn, problem=problem)


def again(problem: Problem) -> SolvedProblem:
  """Generates a problem again, by its id.

  Raises:
    ValueError: the problem is not one of the generator's.
  """
  split, *numbers = problem.id.rsplit("-", 2)
  if split in LEVELS and len(numbers) == 2 and all(map(str.isdigit, numbers)):
    seed, index = map(int, numbers)
    solved = generate(split, index, seed)
    if solved.problem == problem:
      return solved
  raise ValueError(f"problem {problem.id!r} is not one of the generator's")


def problems(split: str, count: int, seed: int = 0) -> list[Problem]:
  """Returns the first `count` problems of a split."""
  if count <= 0:
    raise ValueError("synthetic problems have no end: give a count above 0")
  return [generate(split, index, seed).problem for index in range(count)]
