"""Templates that state relations between quantities in English, by family.

Each family states the same relations in its own words. `{x}` names the quantity
that a sentence defines, `{y}` and `{z}` those that it refers to, `{n}` and
`{m}` are numbers, `{part}` a fraction in words, `{names}` a list of names. The
meaning of the relations is in `relations.py`.
"""

import dataclasses

# Words that state a relation; `generator.py` may replace all others.
FUNCTION_WORDS = frozenset(
  "all and are become cost costs day days does down each equally euros "
  "fewer fifth fifths for fraction from get half hour hours how less many more "
  "much needs off only other paid part parts percent price quarter quarters "
  "share shares stay such takes than that the them there third thirds three "
  "times together two unloads loads week weeks what with after among "
  "leaves spends sails its".split()
)


@dataclasses.dataclass(frozen=True)
class Family:
  """The templates of one situation.

  Attributes:
    name: part of its problems' source.
    who: "people" or "places": the pool of names.
    group: "train", "validation" or "test": the splits that use it.
    says: relation -> templates; relations that it lacks are not used.
    asks: kind of question -> templates; "one" is always there.
    chain: whether every sentence refers to the one before.
    whole: whether quantities are countable, so that parts must be integers.
  """

  name: str
  who: str
  group: str
  says: dict[str, tuple[str, ...]]
  asks: dict[str, tuple[str, ...]]
  chain: bool = False
  whole: bool = True


def _compare(
  name: str,
  group: str,
  does: str,
  do: str,
  noun: str,
  product: str,
  *,
  rate: str = "",
  whole: bool = True,
) -> Family:
  """Returns a family that compares quantities of people.

  Args:
    name, group, whole: see `Family`.
    does: the verb, third person singular ("picks").
    do: the infinitive of the verb ("pick").
    noun: the thing that is counted or measured ("apples", "litres of water").
    product: a template that gives the product of {n} and {m}.
    rate: a template that asks for {x}'s quantity divided by {n}; "" for none.
  """
  asks = {
    "one": (f"How many {noun} does {{x}} {do}?",),
    "total": (
      f"How many {noun} do {{names}} {do} together?",
      f"How many {noun} do {{names}} {do} in all?",
    ),
    "difference": (f"How many more {noun} does {{x}} {do} than {{y}}?",),
    "fraction": (
      f"What fraction of the {noun} of {{x}} and {{y}} does {{x}} {do}?",
    ),
    "percentage": (
      f"What {{x}} {does} is how many percent of what {{y}} {does}?",
    ),
  }
  if rate:
    asks["rate"] = (rate,)
  return Family(
    name=name,
    who="people",
    group=group,
    whole=whole,
    says={
      "given": (f"{{x}} {does} {{n}} {noun}.",),
      "product": (product,),
      "more": (
        f"{{x}} {does} {{n}} more {noun} than {{y}}.",
        f"{{x}} {does} {{n}} {noun} more than {{y}}.",
      ),
      "fewer": (
        f"{{x}} {does} {{n}} fewer {noun} than {{y}}.",
        f"{{x}} {does} {{n}} {noun} fewer than {{y}}.",
      ),
      "times": (f"{{x}} {does} {{n}} times as many {noun} as {{y}}.",),
      "part": (f"{{x}} {does} {{part}} as many {noun} as {{y}}.",),
      "percent": (f"{{x}} {does} {{n}}% as many {noun} as {{y}}.",),
      "both": (f"{{x}} {does} as many {noun} as {{y}} and {{z}} together.",),
    },
    asks=asks,
  )


def _chain(
  name: str,
  group: str,
  start: str,
  more: str,
  fewer: str,
  times: str,
  part: str,
  percent: str,
  one: str,
  difference: str,
) -> Family:
  """Returns a family whose one quantity changes from place to place."""
  return Family(
    name=name,
    who="places",
    group=group,
    chain=True,
    says={
      "given": (start,),
      "more": (more,),
      "fewer": (fewer,),
      "times": (times,),
      "part": (part,),
      "percent": (percent,),
    },
    asks={"one": (one,), "difference": (difference,)},
  )


FAMILIES = (
  _compare(
    "orchard",
    "train",
    "picks",
    "pick",
    "apples",
    "{x} fills {n} baskets with {m} apples each.",
    rate="{x} shares the apples equally among {n} friends. How many apples "
    "does each get?",
  ),
  _compare(
    "savings",
    "train",
    "saves",
    "save",
    "euros",
    "{x} saves {m} euros a week for {n} weeks.",
    rate="{x} spends the money in {n} days. How many euros is that a day?",
    whole=False,
  ),
  _compare(
    "reading",
    "train",
    "reads",
    "read",
    "pages",
    "{x} reads {m} pages a day for {n} days.",
    rate="{x} needs {n} hours for them. How many pages is that an hour?",
  ),
  _compare(
    "bakery",
    "train",
    "bakes",
    "bake",
    "loaves",
    "{x} bakes {n} trays of {m} loaves.",
    rate="{x} packs them into {n} boxes. How many loaves are in a box?",
  ),
  _compare(
    "walking",
    "train",
    "walks",
    "walk",
    "km",
    "{x} walks for {n} hours at {m} km an hour.",
    rate="{x} takes {n} hours. How many km an hour is that?",
    whole=False,
  ),
  _compare(
    "factory",
    "train",
    "makes",
    "make",
    "toys",
    "{x} works {n} hours and makes {m} toys an hour.",
    rate="{x} takes {n} hours. How many toys is that an hour?",
  ),
  _compare(
    "farm",
    "train",
    "keeps",
    "keep",
    "hens",
    "{x} keeps {n} pens of {m} hens.",
  ),
  _compare(
    "water",
    "train",
    "carries",
    "carry",
    "litres of water",
    "{x} carries {n} buckets of {m} litres of water.",
    rate="{x} waters {n} beds with it. How many litres does a bed get?",
    whole=False,
  ),
  _compare(
    "stamps",
    "train",
    "owns",
    "own",
    "stamps",
    "{x} owns {n} albums with {m} stamps each.",
  ),
  Family(
    name="prices",
    who="places",
    group="train",
    whole=False,
    says={
      "given": ("A coat costs {n} euros in {x}.",),
      "product": ("In {x} a coat is paid in {n} parts of {m} euros.",),
      "more": ("In {x} it costs {n} euros more than in {y}.",),
      "fewer": ("In {x} it costs {n} euros less than in {y}.",),
      "times": ("In {x} it costs {n} times as much as in {y}.",),
      "part": ("In {x} it costs {part} as much as in {y}.",),
      "percent": ("In {x} it costs {n}% of the price in {y}.",),
      "both": ("In {x} it costs as much as in {y} and {z} together.",),
    },
    asks={
      "one": ("What does the coat cost in {x}?",),
      "total": ("What do coats from {names} cost together?",),
      "difference": ("How much more does it cost in {x} than in {y}?",),
      "percentage": (
        "The price in {x} is how many percent of the price in {y}?",
      ),
    },
  ),
  _chain(
    "bus",
    "train",
    "A bus leaves {x} with {n} people.",
    "In {x} {n} people get on.",
    "In {x} {n} people get off.",
    "In {x} the people on the bus become {n} times as many.",
    "In {x} only {part} of the people stay on the bus.",
    "In {x} only {n}% of the people stay on the bus.",
    "How many people are on the bus after {x}?",
    "How many more people are on the bus after {x} than after {y}?",
  ),
  _chain(
    "ship",
    "train",
    "A ship sails from {x} with {n} crates.",
    "The crew loads {n} crates in {x}.",
    "The crew unloads {n} crates in {x}.",
    "It leaves {x} with {n} times its crates.",
    "It leaves {x} with {part} of its crates.",
    "It leaves {x} with {n}% of its crates.",
    "How many crates does it hold after {x}?",
    "How many more crates does it hold after {x} than after {y}?",
  ),
  _compare(
    "letters",
    "validation",
    "writes",
    "write",
    "letters",
    "{x} writes {m} letters a day for {n} days.",
    rate="{x} needs {n} hours. How many letters is that an hour?",
  ),
  _compare(
    "shells",
    "test",
    "finds",
    "find",
    "shells",
    "{x} finds {n} piles of {m} shells.",
    rate="{x} shares the shells among {n} children. How many does each get?",
  ),
  _compare(
    "honey",
    "test",
    "sells",
    "sell",
    "jars of honey",
    "{x} sells {m} jars of honey a day for {n} days.",
    rate="{x} needs {n} days. How many jars is that a day?",
  ),
  _compare(
    "cycling",
    "test",
    "rides",
    "ride",
    "miles",
    "{x} rides for {n} hours at {m} miles an hour.",
    rate="{x} takes {n} hours. How many miles an hour is that?",
    whole=False,
  ),
  _chain(
    "train_ride",
    "test",
    "A train leaves {x} with {n} riders.",
    "In {x} {n} riders get on.",
    "In {x} {n} riders get off.",
    "In {x} the riders on the train become {n} times as many.",
    "In {x} only {part} of the riders stay on the train.",
    "In {x} only {n}% of the riders stay on the train.",
    "How many riders are on the train after {x}?",
    "How many more riders are on the train after {x} than after {y}?",
  ),
)
