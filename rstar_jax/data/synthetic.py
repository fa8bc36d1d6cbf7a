r"""Procedural word problems with levels: the data set that needs no download.

A problem is a set of quantities, each defined from earlier ones by a relation
and said in the words of a family (`stories.py`), and a question. Its level is
the number of reasoning steps: quantities that the answer needs, plus one where
the question combines them. From level 2 on there are facts that nobody needs;
from level 3 on the sentences are shuffled.

Splits differ in names, numbers and families:

  train       levels 1-6, families of group "train"
  worked      levels 1-4 of the same, some with made-up words for nouns and
              verbs (a reader must cope with words it has never seen): what the
              bootstrap model was trained on
  stretch     the same with a tenth of levels 5 and 6, for its last updates:
              without having met sequences of such length it cannot be taught
  validation  levels 1-6, fewer easy ones, a quarter of it from a family of its
              own
  test        levels 1-6, fewer easy ones, a quarter of it from four families of
              its own
  test_long   levels 7-8, longer than anything trained on

Every answer is computed twice: by exact arithmetic on the relations while the
problem is made, and by `reading.solve` from its words alone, which a test holds
over all splits. The worked solutions are run in the sandbox, by a test too:
nothing here runs code.
"""

import dataclasses
import fractions
import random
import re

from rstar_jax import rng
from rstar_jax.data import stories
from rstar_jax.text import steps as grammar
from rstar_jax.types import Prefix, Problem

LEVELS = {
  "train": ((1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)),
  "worked": ((1, 2), (2, 4), (3, 5), (4, 5)),
  "stretch": ((1, 12), (2, 20), (3, 28), (4, 30), (5, 7), (6, 3)),
  "validation": ((1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)),
  "test": ((1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)),
  "test_long": ((7, 1), (8, 1)),
}
SPLITS = tuple(LEVELS)

# Names are built from two halves, so that a name of the test splits is new
# while each of its halves is not.
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
# Share of worked problems in which nouns and verbs are made up.
_MADE_UP = 0.3
_SYLLABLES = "bli dra fe go hup jin kle mo ne plo qua ri sta tu vex wug".split()
_WORD = re.compile(r"(?<![A-Za-z])[a-z]{3,}")


@dataclasses.dataclass(frozen=True)
class Worked:
  """A problem and its worked solution, as node texts (`text/steps.py`)."""

  problem: Problem
  steps: Prefix


@dataclasses.dataclass(frozen=True)
class _Fact:
  """One quantity: a relation, whose it is, and what it refers to."""

  relation: str
  x: str
  values: dict[str, object]
  value: fractions.Fraction

  @property
  def needs(self) -> tuple[str, ...]:
    return tuple(
      str(self.values[key]) for key in ("y", "z") if key in self.values
    )


def _group(split: str) -> str:
  """Returns which names and numbers a split uses."""
  if split in ("train", "worked", "stretch"):
    return "train"
  return "validation" if split == "validation" else "test"


def _names(who: str, group: str) -> list[str]:
  """Returns the names of a group: a quarter each is kept from training."""
  firsts, rests = _PEOPLE if who == "people" else _PLACES
  wanted = {"train": (0, 1), "validation": (2,), "test": (3,)}[group]
  return [
    first + rest
    for i, first in enumerate(firsts)
    for j, rest in enumerate(rests)
    if (i + j) % 4 in wanted
  ]


def _number(random_: random.Random, group: str, low: int, high: int) -> int:
  """Draws a number; two-digit ones belong to one group by their residue."""
  wanted = {"train": (0, 1, 2, 4, 5), "validation": (3,), "test": (6,)}[group]
  choices = [n for n in range(low, high) if n < 11 or n % 7 in wanted]
  return random_.choice(choices)


def _fact(
  random_: random.Random,
  family: stories.Family,
  group: str,
  x: str,
  known: list[_Fact],
  first: bool,
) -> _Fact | None:
  """Draws one quantity, or None if the draw came out impossible."""
  if first:
    options = [r for r in ("given", "product") if r in family.says]
  else:
    options = [r for r in family.says if r not in ("given", "product")]
  if len(known) < 2:
    options = [r for r in options if r != "both"]
  relation = random_.choice(options)
  values: dict[str, object] = {}
  if relation not in ("given", "product"):
    # The newest quantities are the likeliest, so that chains grow long.
    if family.chain or random_.random() < 0.6:
      y = known[-1]
    else:
      y = random_.choice(known)
    values["y"] = y.x
    value = y.value
  if relation == "given":
    values["n"] = _number(random_, group, 11, 100)
    value = fractions.Fraction(values["n"])
  elif relation == "product":
    values["n"] = random_.randrange(2, 10)
    values["m"] = _number(random_, group, 3, 60)
    value = fractions.Fraction(values["n"] * values["m"])
  elif relation == "more":
    values["n"] = _number(random_, group, 2, 100)
    value += values["n"]
  elif relation == "fewer":
    values["n"] = _number(random_, group, 2, 60)
    value -= values["n"]
  elif relation == "times":
    values["n"] = random_.randrange(2, 8)
    value *= values["n"]
  elif relation == "part":
    values["n"], values["m"] = random_.choice(list(_PARTS))
    value *= fractions.Fraction(values["n"], values["m"])
  elif relation == "percent":
    values["n"] = random_.choice(_PERCENTS)
    value *= fractions.Fraction(values["n"], 100)
  elif relation == "both":
    z = random_.choice([fact for fact in known if fact.x != values["y"]])
    values["z"] = z.x
    value += z.value
  whole = family.whole or value.denominator > 20
  if value <= 0 or value > _LARGEST or (whole and value.denominator != 1):
    return None
  return _Fact(relation, x, values, value)


def _ancestors(facts: list[_Fact], targets: tuple[str, ...]) -> set[str]:
  """Returns the quantities that the targets need, themselves included."""
  by_name = {fact.x: fact for fact in facts}
  needed, queue = set(), list(targets)
  while queue:
    name = queue.pop()
    if name not in needed:
      needed.add(name)
      queue += by_name[name].needs
  return needed


def _question(
  random_: random.Random, family: stories.Family, facts: list[_Fact]
) -> tuple[str, dict[str, object], tuple[str, ...], fractions.Fraction] | None:
  """Draws a question: kind, values, the quantities it names, the answer."""
  kind = "one"
  if random_.random() < 0.4:
    kind = random_.choice(list(family.asks))
  last = facts[-1]
  if kind == "one":
    return kind, {"x": last.x}, (last.x,), last.value
  if kind == "rate":
    n = random_.randrange(2, 10)
    return kind, {"x": last.x, "n": n}, (last.x,), last.value / n
  if len(facts) < 2:
    return None
  if kind == "total":
    count = min(len(facts), random_.choice((2, 2, 3)))
    chosen = [*random_.sample(facts[:-1], count - 1), last]
    random_.shuffle(chosen)
    names = [fact.x for fact in chosen]
    said = ", ".join(names[:-1]) + " and " + names[-1]
    values = {"names": said, "sum": " + ".join(names)}
    return kind, values, tuple(names), sum(fact.value for fact in chosen)
  x, y = last, random_.choice(facts[:-1])
  if kind == "difference":
    if x.value < y.value:
      x, y = y, x
    answer = x.value - y.value
  elif kind == "fraction":
    answer = x.value / (x.value + y.value)
  else:
    answer = 100 * x.value / y.value
    if answer.denominator != 1:
      return None
  return kind, {"x": x.x, "y": y.x}, (x.x, y.x), answer


def _step(comment: str, code: str, values: dict[str, object]) -> str:
  """Returns the body of one node: the import it needs, a comment, code."""
  lines = [f"# {comment.format(**values)}"]
  if "Fraction" in code:
    lines.append("from fractions import Fraction")
  return "\n".join([*lines, code.format(**values), ""])


def solution(bodies: list[str], printed: str, answer: str) -> Prefix:
  """Assembles node texts from the bodies of the steps."""
  opened = [f"{grammar.CODE}\n{bodies[0]}"]
  opened += [f"\n\n{body}" for body in bodies[1:]]
  final = f"\n\n# Now print the final answer\nprint({printed})\n"
  boxed = f"The answer is \\boxed{{{answer}}}."
  return (
    *(text + grammar.END_OF_STEP for text in opened),
    grammar.with_output(final + grammar.END_OF_CODE, answer),
    f"{grammar.ANSWER}{boxed}{grammar.END_OF_ANSWER}",
  )


def _with_made_up_words(random_: random.Random, question: str) -> str:
  """Replaces each noun and verb by a made-up word, the same one each time."""
  made: dict[str, str] = {}

  def replace(match: re.Match) -> str:
    word = match.group()
    if word in stories.FUNCTION_WORDS:
      return word
    plural = "s" if word.endswith("s") else ""
    stem = word.removesuffix("s")
    if stem not in made:
      made[stem] = "".join(random_.sample(_SYLLABLES, random_.choice((1, 2))))
    return made[stem] + plural

  return _WORD.sub(replace, question)


def _attempt(
  random_: random.Random, split: str, family: stories.Family, level: int
) -> Worked | None:
  """Draws one problem, or None where the draw does not fit the level."""
  group = _group(split)
  pool = _names(family.who, group)
  extra = random_.choice((0, 0, 1, 2)) if level >= 2 else 0
  names = random_.sample(pool, level + extra)
  facts: list[_Fact] = []
  for index, name in enumerate(names):
    fresh = index == 0 or (
      not family.chain and index < 4 and random_.random() < 0.15
    )
    fact = _fact(random_, family, group, name, facts, fresh)
    if fact is None:
      return None
    facts.append(fact)
  # The target is the deepest quantity; in a chain nothing may follow it.
  asked_from = facts[: level + (0 if family.chain else extra)]
  drawn = _question(random_, family, asked_from)
  if drawn is None:
    return None
  kind, values, targets, answer = drawn
  needed = _ancestors(facts, targets)
  if len(needed) + (kind != "one") != level or answer <= 0:
    return None
  sentences = [
    random_.choice(family.says[fact.relation]).format(
      x=fact.x,
      **fact.values,
      part=_PARTS.get((fact.values.get("n"), fact.values.get("m"))),
    )
    for fact in facts
  ]
  if level >= 3 and not family.chain:
    random_.shuffle(sentences)
  sentences.append(random_.choice(family.asks[kind]).format(**values))
  question = " ".join(sentences)
  if split in ("worked", "stretch") and random_.random() < _MADE_UP:
    question = _with_made_up_words(random_, question)
  bodies = [
    _step(*stories.RELATIONS[fact.relation], {"x": fact.x, **fact.values})
    for fact in facts
    if fact.x in needed
  ]
  if kind != "one":
    bodies.append(_step(*stories.QUESTIONS[kind], values))
  text = str(answer)
  problem = Problem(
    id="",
    question=question,
    answer=text,
    source=f"synthetic/{family.name}",
    level=level,
  )
  printed = "answer" if kind != "one" else targets[0]
  return Worked(problem, solution(bodies, printed, text))


def generate(split: str, index: int, seed: int = 0) -> Worked:
  """Returns one problem of a split with its worked solution.

  Args:
    split: one of `SPLITS`.
    index: 0 or more; there is no end.
    seed: another seed is another set of problems.

  Raises:
    ValueError: the split is unknown.
  """
  if split not in LEVELS:
    raise ValueError(
      f"unknown synthetic split {split!r}: use one of {', '.join(SPLITS)}"
    )
  random_ = random.Random(rng.seed_for(seed, "synthetic", split, index))
  group = _group(split)
  seen = [f for f in stories.FAMILIES if f.group == "train"]
  unseen = [f for f in stories.FAMILIES if f.group == group]
  from_unseen = group != "train" and index % 4 == 3
  levels, weights = zip(*LEVELS[split], strict=True)
  level = random_.choices(levels, weights)[0]
  while True:
    family = random_.choice(unseen if from_unseen else seen)
    worked = _attempt(random_, split, family, level)
    if worked is not None:
      problem = dataclasses.replace(
        worked.problem, id=f"{split}-{seed}-{index}"
      )
      return dataclasses.replace(worked, problem=problem)


def problems(split: str, count: int, seed: int = 0) -> list[Problem]:
  """Returns the first `count` problems of a split."""
  if count <= 0:
    raise ValueError("synthetic problems have no end: give a count above 0")
  return [generate(split, index, seed).problem for index in range(count)]
