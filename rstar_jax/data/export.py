"""Exports training data as a data set for the Hugging Face Hub.

  sft/train.jsonl    prompt, completion, problem_id
  pairs/train.jsonl  prompt, chosen, rejected, weight, kind, problem_id

README.md makes `datasets.load_dataset(FOLDER, "sft")` work. The columns are
those of TRL's SFTTrainer and RewardTrainer. Both sides of a pair are partial
solutions, valued at their last token.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from rstar_jax.steps import prompts
from rstar_jax.types import PreferencePair, Trajectory

_CARD = """---
configs:
- config_name: sft
  data_files: sft/train.jsonl
- config_name: pairs
  data_files: pairs/train.jsonl
---

# Solutions and preference pairs of rstar_jax

Code-augmented solutions whose code runs and whose answers are right (`sft`,
{solutions} rows), and pairs of partial solutions ranked by Q-value (`pairs`,
{pairs} rows; `weight` is 1 / (positives x negatives) of the pair's group),
found by tree search as in [rStar-Math](https://arxiv.org/abs/2501.04519).

A step ends in `<end_of_step>`, code in `<end_of_code>`; what is between
`<output>` and `<end_of_output>` was written by the interpreter, and is no
target of training.
"""


def write(
  folder: pathlib.Path,
  solutions: Iterable[Trajectory],
  pairs: Iterable[PreferencePair],
  prompt: prompts.Prompt = prompts.prompt,
) -> dict[str, int]:
  """Writes the data set; an older one is overwritten.

  Args:
    folder: created if it does not exist.
    solutions: rows of "sft".
    pairs: rows of "pairs".
    prompt: returns the text before the first step, for a question.

  Returns:
    The numbers of rows of "sft" and "pairs".
  """
  counts = {
    "sft": _lines(
      folder / "sft", (_solution(each, prompt) for each in solutions)
    ),
    "pairs": _lines(folder / "pairs", (_pair(each, prompt) for each in pairs)),
  }
  (folder / "README.md").write_text(
    _CARD.format(solutions=counts["sft"], pairs=counts["pairs"]),
    encoding="utf-8",
  )
  return counts


def _solution(each: Trajectory, prompt: prompts.Prompt) -> dict[str, Any]:
  return {
    "prompt": prompt(each.question),
    "completion": "".join(each.steps),
    "problem_id": each.problem_id,
  }


def _pair(each: PreferencePair, prompt: prompts.Prompt) -> dict[str, Any]:
  return {
    "prompt": prompt(each.question),
    "chosen": "".join(each.chosen),
    "rejected": "".join(each.rejected),
    "weight": each.weight,
    "kind": each.kind,
    "problem_id": each.problem_id,
  }


def _lines(folder: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> int:
  folder.mkdir(parents=True, exist_ok=True)
  count = 0
  with open(folder / "train.jsonl", "w") as file:
    for row in rows:
      file.write(json.dumps(row) + "\n")
      count += 1
  return count
