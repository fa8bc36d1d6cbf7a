"""Small hand-made workdirs, for tests of the report."""

import dataclasses
import json
import pathlib

import numpy as np

from rstar_jax.data.synthetic import generator
from rstar_jax.search.tree import ANSWER, CODE, RIGHT, STEP, WRONG, Child, Tree
from rstar_jax.storage import json_io, manifests, records
from rstar_jax.types import Problem

# A text that would run if it were taken for markup anywhere.
HOSTILE = (
  "</script><script>window.hacked = 1</script>"
  "<img src=x onerror='window.hacked = 2'><svg onload=window.hacked=3>"
  "<!-- --> {{scripts}} ${1} \"'` &lt; \u2028 \u202e \ud800 \0"
)
SPLIT = "toy:test"


def step(text: str, visits: int = 0, total: float = 0.0, **fields) -> Child:
  """Returns a step with its marker."""
  text = f"{text}\n<end_of_step>"
  return Child(text, STEP, visits=visits, value_sum=total, **fields)


def code(text: str, printed: str, visits: int, total: float, **fields) -> Child:
  """Returns a step that ends the code, with its output."""
  text = f"{text}\n<end_of_code>\n<output>{printed}<end_of_output>\n"
  return Child(text, CODE, visits=visits, value_sum=total, **fields)


def answer(text: str, right: bool, visits: int = 0, **fields) -> Child:
  """Returns an answer with its verdict."""
  reward = 1.0 if right else -1.0
  return Child(
    f"<answer>The answer is \\boxed{{{text}}}.<end_of_answer>",
    ANSWER,
    visits=visits,
    value_sum=visits * reward,
    answer=text,
    correct=RIGHT if right else WRONG,
    reward=reward,
    **fields,
  )


def apples(name: str = "apples", source: str = "toy/fruit") -> Tree:
  """Returns a tree of ten nodes: 7 is right, 8 is wrong, 3, 4 and 6 untried.

  0 -- 1 -- 5 -- 7 (14)
    |    `- 6
    |- 2 -- 8 (code) -- 9 (15)
    |- 3
    `- 4
  """
  question = "Tom has 9 apples and buys 5. How many has he?"
  tree = Tree(Problem(name, question, "14", source, 2))
  tree.add_children(
    0,
    [
      step("<code>\n# Tom has 9\nTom = 9", 2, 2.0, ppm=0.5, logprob=-0.25),
      step("<code>\nTom = 10", 1, -1.0, ppm=-0.5),
      step("<code>\nTom = 1"),
      step("<code>\nTom = 2"),
    ],
  )
  tree.add_children(1, [code("\nprint(Tom + 5)", "14", 2, 2.0), step("\nx=1")])
  tree.tokens = 40
  tree.add_children(5, [answer("14", True, 2)])
  tree.end_rollout(7)
  tree.add_children(2, [code("\nprint(Tom + 5)", "15", 1, -1.0)])
  tree.tokens = 61
  tree.add_children(8, [answer("15", False, 1)])
  tree.end_rollout(9)
  tree.end_rollout(7)
  tree.visits[0], tree.value_sum[0] = 3, 1.0
  tree.failed_rollouts = 1
  tree.drop("duplicate")
  tree.drop("duplicate")
  tree.drop("error")
  return tree


def generated(index: int, right: bool) -> Tree:
  """Returns a tree of a generated problem, with one decision at its root.

  The first of two steps is right, and the PPM says so if `right`; a rollout
  went on from the one that it prefers, to the answer that follows from it.
  """
  solved = generator.generate("test", index)
  tree = Tree(solved.problem)
  first = solved.steps[0]
  other = first.replace("\n<end_of_step>", " + 1\n<end_of_step>")
  value = 0.5 if right else -0.5
  good, bad = tree.add_children(
    0,
    [
      Child(first, STEP, ppm=value, logprob=-1.0, visits=1),
      Child(other, STEP, ppm=-value, logprob=-2.0, visits=1),
    ],
  )
  # What follows from the wrong step is of no interest here.
  node = good if right else bad
  for text in solved.steps[1:-1] if right else ():
    (node,) = tree.add_children(node, [Child(text, STEP, ppm=value, visits=1)])
  said = solved.problem.answer if right else "no number"
  tree.add_children(node, [dataclasses.replace(answer(said, right), ppm=0.9)])
  return tree


def small(name: str) -> Tree:
  """Returns a tree of a question and two steps, with no answer."""
  tree = Tree(Problem(name, "A small tree", "1", "toy/large", 5))
  tree.add_children(0, [step("x = 1", 1), step("x = 2")])
  tree.end_rollout()
  return tree


def hostile() -> Tree:
  """Returns a tree in which every text is `HOSTILE`."""
  texts = (f"bad{HOSTILE}", HOSTILE, HOSTILE, HOSTILE)
  tree = Tree(Problem(*texts, level=3, tests=HOSTILE))
  tree.add_children(
    0, [step(HOSTILE, 1, -1.0), step(f"# {HOSTILE}"), step(f"{HOSTILE}2")]
  )
  tree.add_children(1, [code(HOSTILE, HOSTILE, 1, -1.0)])
  tree.add_children(4, [answer(HOSTILE, False, 1)])
  tree.end_rollout(5)
  tree.drop(HOSTILE)
  return tree


def large(nodes: int = 5000, width: int = 8) -> Tree:
  """Returns a tree of so many nodes, most of them never tried."""
  random = np.random.default_rng(7)
  tree = Tree(Problem("large", "A large tree", "1", "toy/large", 5))
  leaves = [0]
  while len(tree) < nodes:
    leaf = leaves.pop(
      int(random.integers(max(len(leaves) - 24, 0), len(leaves)))
    )
    size = min(width, nodes - len(tree))
    # Depth 11 and its answer are as deep as a search goes.
    if tree.depth[leaf] == 11:
      made = tree.add_children(
        leaf, [answer(str(i), i == 1, int(i < 2)) for i in range(size)]
      )
    else:
      made = tree.add_children(
        leaf, [step(f"x{len(tree)} = {i}") for i in range(size)]
      )
      leaves += made
    at = leaf
    for each in (*tree.path(at), made[0]):
      tree.visits[each] += 1
      tree.value_sum[each] += float(random.uniform(-1, 1))
    tree.tokens += 20 * size
    tree.end_rollout(made[0])
  return tree


def record(name: str, source: str, *verdicts: str, split: str = SPLIT) -> dict:
  """Returns a row of an evaluation; the answers of equal verdicts are equal."""
  return {
    "problem_id": name,
    "split": split,
    "gold": "14",
    "level": 2,
    "source": source,
    "tokens": 10 * len(verdicts),
    "spent": [10 * (unit + 1) for unit in range(len(verdicts))],
    "trajectories": [
      {
        "unit": unit,
        "answer": {"equal": "14", "different": "15"}.get(each),
        "verdict": each,
        "value": None,
        "tokens": 10,
      }
      for unit, each in enumerate(verdicts)
    ],
  }


def write_round(
  workdir: pathlib.Path,
  number: int,
  trees: list[Tree] = (),
  tests: list[Tree] = (),
  rows: list[dict] = (),
) -> None:
  """Writes the trees and the evaluation of a round, and their manifests."""
  folder = workdir / f"round_{number}"
  name = records.shard_name(0, 1)
  if trees:
    records.write_shard(
      folder / "trees" / name, [each.to_record() for each in trees]
    )
    manifests.write(
      folder / "trees", {"problems": len(trees), "solved": 1.0, "levels": {}}
    )
  if rows or tests:
    split = folder / "eval" / "toy_test"
    records.write_shard(split / name, rows)
    if tests:
      records.write_shard(
        split / f"trees-{name}", [each.to_record() for each in tests]
      )
    manifests.write(folder / "eval", {"round": number})


def write(workdir: pathlib.Path) -> pathlib.Path:
  """Writes a run of one round, with every record: two trees, an evaluation."""
  tree, test = apples(), apples("pears")
  greedy = [record("pears", "greedy", "different")]
  write_round(workdir, 0, rows=greedy)
  write_round(
    workdir,
    1,
    [tree, hostile()],
    [test],
    [
      record("pears", "greedy", "equal"),
      record("pears", "samples", "equal", "different", "failed"),
      record("pears", "mcts", "equal", "different"),
      record("figs", "greedy", "failed"),
    ],
  )
  folder, name = workdir / "round_1", records.shard_name(0, 1)
  path = list(tree.prefix(7))
  row = {"problem_id": "apples", "steps": path, "answer": "14"}
  records.write_shard(folder / "sft" / name, [row])
  suspect = {
    "problem_id": hostile().problem.id,
    "question": HOSTILE,
    "gold": HOSTILE,
    "level": 3,
    "rollouts": 1,
    "tokens": 9,
    "answers": 5,
    "distinct": 1,
    "agreed": HOSTILE,
    "votes": 5,
    "suspect": True,
  }
  records.write_shard(folder / "sft" / "unsolved.jsonl", [suspect])
  counts = {"answers": 3, "right": 1, "wrong": 2, "undecided": 0}
  manifests.write(folder / "sft", counts)
  pairs = [
    {"kind": "step", "chosen": tree.prefix(1), "rejected": tree.prefix(2)},
    {"kind": "across", "chosen": tree.prefix(1), "rejected": tree.prefix(8)},
    {"kind": "final", "chosen": tree.prefix(7), "rejected": tree.prefix(9)},
    {"kind": "step", "chosen": ["of another tree"], "rejected": ["too"]},
  ]
  records.write_shard(
    folder / "pairs" / name,
    [{"problem_id": "apples", "weight": 0.5, **each} for each in pairs],
  )
  study = folder / "study"
  study.mkdir()
  (study / "tables.md").write_text(
    "### toy\n\nHow {{title}} <b>went</b>.\n\n"
    "| Method | Right |\n| --- | --- |\n| <i>x</i> | 1 |\n"
  )
  metrics = [
    {"step": 1, "rollout/seconds": 5.0, "rollout/device_idle_share": 0.5},
    {"step": 1, "round_1_sft/loss": 2.0, "round_1_sft/seconds": 3.0},
    {"step": 2, "round_1_sft/loss": 1.0, "round_1_sft/seconds": 4.0},
    {"step": 1, "eval/seconds": 7.0, "eval/generated_tokens_per_second": 11.0},
  ]
  (workdir / "metrics.jsonl").write_text(
    "".join(json.dumps(each) + "\n" for each in metrics)
  )
  config = {
    "rounds": [{"annotation": "terminal"}],
    "search": {},
    "eval": {
      "answer_select": "majority",
      "search": {"annotation": "terminal", "trajectory_value": "last"},
    },
    "train": {"source": HOSTILE},
  }
  line = {"method": "policy", "split": SPLIT, "n": 2, "tokens_per_problem": 9.0}
  results = {
    "config": config,
    "rows": [
      {**line, "round": 0, "accuracy": 0.0, "low": 0.0, "high": 0.0},
      {**line, "round": 1, "accuracy": 0.5, "low": 0.0, "high": 1.0},
    ],
    "solved": [
      {"round": 1, "share": 0.5, "levels": {"2": {"problems": 2, "solved": 1}}}
    ],
    "ppm": [
      {
        "round": 1,
        "kind": "ppm",
        "pairs": 3,
        "held_out_step": {"accuracy": 0.75, "pairs": 4.0},
        "held_out_final": {"accuracy": 1.0, "pairs": 1.0},
      }
    ],
  }
  json_io.write(workdir / "results.json", results)
  json_io.write(workdir / "config.json", config)
  return workdir
