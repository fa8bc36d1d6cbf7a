"""Which pairs the trees of a search give: how deep, how true, for how much.

  python -m benchmarks.pairs
  python -m benchmarks.pairs --policy=shipped --levels=1,2,3,4,5,6

Searches problems of the generator (`synthetic:train`) for each --setting, which
is fields of `SearchConfig`, and makes the pairs of their trees. The policy is
scripted: it knows the right next step and slips at a share --slip of them, in
one of three ways; a tenth of its steps fails, and each has one of --wordings
comments. Or it is the model that ships, by `configs/tiny.py`. The PPM is
scripted either way: it says 0.5 where the oracle says that a path is right so
far and else -0.5, plus noise of deviation --noise, which is drawn from the
text.

Prints a JSON line for each setting, with figures as [value, low, high], a 95%
bootstrap interval over problems. Of a tree: its tokens and expansions, whether
it is solved, its step pairs and final pairs. Of its tokens: the share that was
repeated or dropped ("wasted"); for 1000 of them, the pairs, the true ones and
the corrections. Of step pairs: the share at each step ("step_4" is the fourth
step and later ones); the share whose chosen step is right so far and whose
rejected one is not ("true"), those the other way round ("reversed"), and the
true ones that the PPM has the wrong way round ("corrections"). Of all pairs:
the share of three steps or more. Of the steps that rollouts passed: how many
passed each ("passes_2" is of second steps). Of the nodes on right paths that
have right and wrong children: the share that has a true pair, apart for nodes
of which the PPM likes a right child best ("paired_right") and the others
("paired_wrong").
"""

import dataclasses
import functools
import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence

import numpy as np
from absl import app, flags

import rstar_jax as rj
from benchmarks import lines
from configs import tiny
from rstar_jax import rng, testing
from rstar_jax.config.schema import ExtractConfig, SearchConfig
from rstar_jax.data import pairs as pairs_lib
from rstar_jax.data.synthetic import generator, oracle
from rstar_jax.data.synthetic.solutions import SolvedProblem
from rstar_jax.evaluation import intervals
from rstar_jax.search import driver, mcts
from rstar_jax.search import tree as tree_lib
from rstar_jax.search.requests import Calls
from rstar_jax.search.tree import NO_END, Tree
from rstar_jax.steps import grammar
from rstar_jax.types import Candidate, ExecResult, Prefix

_SETTINGS = flags.DEFINE_multi_string(
  "setting",
  [
    f"uct_unvisited={unvisited},{more}"
    for more in ("", "annotation=ppm", "annotation=ppm,ppm_counts_visit=false")
    for unvisited in ("inf", "zero")
  ],
  "Fields of SearchConfig: NAME=VALUE,NAME=VALUE. May be given again.",
)
_POLICY = flags.DEFINE_enum(
  "policy", "scripted", ["scripted", "shipped"], "Policy that writes steps."
)
_PROBLEMS = flags.DEFINE_integer("problems", 100, "Number of problems.", 1)
_LEVELS = flags.DEFINE_list("levels", ["4", "5", "6"], "Steps of a problem.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of the searches.")
_ROLLOUTS = flags.DEFINE_integer("rollouts", 16, "Rollouts per tree.", 1)
_CANDIDATES = flags.DEFINE_integer("candidates", 8, "Candidates per leaf.", 1)
_SLIP = flags.DEFINE_float("slip", 0.3, "Share of wrong steps.", 0, 1)
_WORDINGS = flags.DEFINE_integer("wordings", 8, "Wordings of each step.", 1)
_NOISE = flags.DEFINE_float(
  "noise", 0.7, "Standard deviation of the PPM's noise.", 0
)

_FAILS = 0.1
# What a slip adds to a quantity, the likeliest most often.
_SLIPS = (1, 1, 1, 2, 2, 3)
_DEEPEST = 4
# What is counted of which: name, numerator, denominator.
_FIGURES = (
  ("tokens", "tokens", "trees"),
  ("expansions", "expansions", "trees"),
  ("solved", "solved", "trees"),
  ("wasted", "wasted", "tokens"),
  ("step_pairs", "step", "trees"),
  ("final_pairs", "final", "trees"),
  *((f"step_{i}", f"step_{i}", "step") for i in range(1, _DEEPEST + 1)),
  ("three_steps_or_more", "long", "all"),
  *((f"passes_{i}", f"passes_{i}", f"passed_{i}") for i in range(1, _DEEPEST)),
  ("true", "true", "step"),
  ("reversed", "reversed", "step"),
  ("corrections", "corrections", "step"),
  ("paired_right", "paired_right", "nodes_right"),
  ("paired_wrong", "paired_wrong", "nodes_wrong"),
  ("pairs_per_1000", "step", "thousands"),
  ("true_per_1000", "true", "thousands"),
  ("corrections_per_1000", "corrections", "thousands"),
)


class Ppm:
  """A noisy PPM, which asks the oracle."""

  def __init__(self, solved: Sequence[SolvedProblem]):
    known = {each.problem.question: each for each in solved}

    @functools.cache
    def judge(question: str, path: Prefix) -> tuple[oracle.State, int]:
      if not path:
        return oracle.START, tree_lib.RIGHT
      state, _ = judge(question, path[:-1])
      return oracle.judge(known[question], state, path[-1])

    self._judge = judge

  def right(self, question: str, path: Prefix) -> bool:
    """Returns whether a path is right so far."""
    return self._judge(question, path)[1] == tree_lib.RIGHT

  def value(self, question: str, path: Prefix) -> float:
    share = (rng.seed_for(0, "noise", question, *path) + 0.5) / 2**32
    noise = _NOISE.value * statistics.NormalDist().inv_cdf(share)
    value = (0.5 if self.right(question, path) else -0.5) + noise
    return max(-1.0, min(value, 1.0))

  def __call__(self, questions, prefixes, rows) -> list[np.ndarray]:
    return [
      np.array([self.value(question, (*prefix, s)) for s in row], np.float32)
      for question, prefix, row in zip(questions, prefixes, rows, strict=True)
    ]


class Scripted:
  """A policy that knows the right solutions, and slips."""

  def __init__(self, solved: Sequence[SolvedProblem]):
    self._steps = {each.problem.question: each.steps for each in solved}
    tokenizer = rj.load_tokenizer(rj.BASE_MODEL)
    self._encode = functools.cache(lambda text: tuple(tokenizer.encode(text)))

  def __call__(self, questions, prefixes, seeds) -> list[list[Candidate]]:
    rows = zip(questions, prefixes, seeds, strict=True)
    return [
      [self._candidate(self._steps[question], prefix, int(s)) for s in row]
      for question, prefix, row in rows
    ]

  def _candidate(self, steps: Prefix, prefix: Prefix, seed: int) -> Candidate:
    fails, slips, which, wording = np.random.default_rng(seed).random(4)
    text, finish = steps[len(prefix)].split(f"\n{grammar.OUTPUT}")[0], "step"
    if text.startswith(grammar.ANSWER):
      (shown,) = grammar.output_spans(prefix[-1])
      printed = grammar.MARKER.sub("", prefix[-1][slice(*shown)]).strip()
      text = f"The answer is \\boxed{{{printed}}}."
      text, finish = grammar.ANSWER + text + grammar.END_OF_ANSWER, "answer"
    elif text.endswith(grammar.END_OF_CODE):
      finish = "code"
    else:
      added = ""
      if fails < _FAILS:
        added = " + nothing"
      elif slips < _SLIP.value:
        added = f" + {_SLIPS[int(which * len(_SLIPS))]}"
      end = f"\n{grammar.END_OF_STEP}"
      text = text.replace(end, added + end)
      text = text.replace("# ", f"# {int(wording * _WORDINGS.value)}. ", 1)
    return Candidate(text, self._encode(text), -1.0, finish)


def verify(programs: Sequence[Sequence[str]]) -> list[ExecResult]:
  """Runs the scripted policy's programs, each once."""
  return [_run(tuple(each)) for each in programs]


@functools.cache
def _run(program: Prefix) -> ExecResult:
  return testing.run_trusted([program])[0]


def config_of(setting: str) -> SearchConfig:
  """Returns the config that a setting describes."""
  config = SearchConfig(rollouts=_ROLLOUTS.value, candidates=_CANDIDATES.value)
  values = {}
  for each in filter(None, setting.split(",")):
    name, text = each.split("=", 1)
    old = getattr(config, name)
    values[name] = text if isinstance(old, str) else type(old)(json.loads(text))
  return dataclasses.replace(config, **values)


def problems() -> list[SolvedProblem]:
  """Returns the first problems of the chosen levels."""
  levels, found, index = set(map(int, _LEVELS.value)), [], 0
  while len(found) < _PROBLEMS.value:
    each = generator.generate("train", index)
    index += 1
    if each.problem.level in levels:
      found.append(each)
  return found


def search(
  problems: Sequence[rj.Problem], config: SearchConfig, calls: Calls, seed: int
) -> list[Tree]:
  """Returns the trees, with all that was sampled."""
  trees = [Tree(each, keeps_draws=True) for each in problems]
  searches = [mcts.search_tree(each, config, seed) for each in trees]
  return driver.run_searches(searches, calls, config.in_flight)


def wasted(tree: Tree) -> int:
  """Returns the tokens that gave no node of their own."""
  seen, tokens = {tree_lib.NO_NODE}, 0
  for draw in tree.draws:
    tokens += len(draw.token_ids) * (draw.node in seen)
    seen.add(draw.node)
  return tokens


def count(tree: Tree, ppm: Ppm) -> Counter:
  """Counts what the figures are made of."""
  question = tree.problem.question
  found = Counter(
    trees=1,
    tokens=tree.tokens,
    thousands=tree.tokens / 1000,
    expansions=tree.expansions,
    solved=tree_lib.solved(tree),
    wasted=wasted(tree),
  )
  passes = Counter(
    node for *_, end in tree.growth if end != NO_END for node in tree.path(end)
  )
  for node, times in passes.items():
    depth = tree.depth[node]
    found.update({f"passes_{depth}": times, f"passed_{depth}": 1})
  with_true = set()
  for pair in pairs_lib.pairs([tree], ExtractConfig())[0]:
    found.update(["all", pair.kind], long=len(pair.chosen) > 2)
    if pair.kind == "final":
      continue
    found[f"step_{min(len(pair.chosen), _DEEPEST)}"] += 1
    sides = pair.chosen, pair.rejected
    match tuple(ppm.right(question, side) for side in sides):
      case True, False:
        high, low = (ppm.value(question, side) for side in sides)
        found.update(true=1, corrections=high < low)
        with_true.add(pair.chosen[:-1])
      case False, True:
        found["reversed"] += 1
  for node in np.flatnonzero(tree.num_children):
    paths = [tree.prefix(child) for child in tree.children(int(node))]
    right = [ppm.right(question, path) for path in paths]
    if any(right) and not all(right) and ppm.right(question, paths[0][:-1]):
      best = np.argmax([ppm.value(question, path) for path in paths])
      kind = "right" if right[best] else "wrong"
      found[f"nodes_{kind}"] += 1
      found[f"paired_{kind}"] += paths[0][:-1] in with_true
  return found


def figures(counts: Sequence[Counter]) -> dict[str, list[float] | None]:
  """Returns figures from the counts of problems; None for 0 of 0."""
  size = intervals.RESAMPLES, len(counts)
  draws = np.random.default_rng(0).integers(0, len(counts), size)
  found: dict[str, list[float] | None] = dict.fromkeys(n for n, *_ in _FIGURES)
  for name, above, below in _FIGURES:
    both = np.array([(each[above], each[below]) for each in counts], float)
    if not both[:, 1].any():
      continue
    sums = both[draws].sum(axis=1)
    sums = sums[sums[:, 1] > 0]
    low, high = np.percentile(sums[:, 0] / sums[:, 1], (2.5, 97.5))
    value = both[:, 0].sum() / both[:, 1].sum()
    found[name] = [float(f"{each:.4g}") for each in (value, low, high)]
  return found


def main(_):
  solved = problems()
  asked = [each.problem for each in solved]
  ppm = Ppm(solved)

  def measure(calls: Calls) -> None:
    for setting in _SETTINGS.value:
      counts = [Counter() for _ in asked]
      for seed in map(int, _SEEDS.value):
        trees = search(asked, config_of(setting), calls, seed)
        for into, tree in zip(counts, trees, strict=True):
          into.update(count(tree, ppm))
      lines.show(
        "pairs",
        policy=_POLICY.value,
        setting=setting,
        problems=len(asked),
        seeds=len(_SEEDS.value),
        pairs=sum(each["step"] for each in counts),
        **figures(counts),
      )

  if _POLICY.value == "scripted":
    measure(Calls(Scripted(solved), verify, testing.grade_equal, ppm))
  else:
    with tempfile.TemporaryDirectory() as folder:
      with rj.open_run(tiny.get_config(), folder) as context:
        measure(rj.load_calls(context, 0).replace(score=ppm))


if __name__ == "__main__":
  app.run(main)
