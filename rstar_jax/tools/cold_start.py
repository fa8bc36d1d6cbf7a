r"""Trains a first policy on GSM8K's solutions, rewritten as code steps.

  python -m rstar_jax.tools.cold_start --gsm8k=train.jsonl --output=DIR \
    --policy=HuggingFaceTB/SmolLM2-135M-Instruct

The paper's first solutions come from a model of 236B parameters; here they are
made from those that people wrote (`data/gsm8k.py`). Problems are divided by
their texts: 7 of 10 are for this training, 1 is for validation, and 2 are for a
search that has not seen their solutions. In DIR:

  cold_start.jsonl   {"question", "steps"}, each of whose programs ran and
                     printed the right answer
  search.jsonl, validation.jsonl  problems, with answers
  left_out.json      numbers of solutions left out, by reason
  policy/            the policy, for `config.policy.path`

The same command resumes.
"""

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from absl import app, flags, logging

from rstar_jax import outside, rng
from rstar_jax.config.schema import TrainConfig
from rstar_jax.data import gsm8k
from rstar_jax.data.rows import ProblemError, as_json
from rstar_jax.data.sources import open_source
from rstar_jax.grading.grader import Grader
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.pipeline import models
from rstar_jax.sandbox.pool import Sandbox
from rstar_jax.storage import store
from rstar_jax.training import own_data

# Parts of every ten problems.
_PARTS = ("validation", "search", "search", *["cold_start"] * 7)

# 4,096 tokens per update are about 17 solutions.
TRAIN = TrainConfig(
  batch_size=8,
  # Two rows at a time need less memory, and fit into the CPU's caches.
  accumulate=4,
  length=512,
  learning_rate=3e-4,
  schedule="cosine",
  warmup=0.05,
  weight_decay=0.01,
  held_out=40,
  eval_every=100,
  checkpoint_every=20,
  log_every=5,
)


def part_of(question: str) -> str:
  """Returns the part that a problem belongs to, by its text alone."""
  return _PARTS[rng.seed_for(0, "gsm8k", question) % len(_PARTS)]


def divide(rows: Iterable[Mapping[str, str]]) -> dict[str, list]:
  """Divides rows of GSM8K into parts.

  Returns:
    The rows by part, with their number of calculator notes as "level", None if
    they have none.
  """
  parts: dict[str, list] = {name: [] for name in dict.fromkeys(_PARTS)}
  for row in rows:
    level = row["answer"].count("<<") or None
    parts[part_of(row["question"])].append({**row, "level": level})
  return parts


def rewrite(
  rows: Iterable[Mapping[str, str]],
  sandbox: Sandbox,
  grader: Grader,
  most_steps: int = 0,
) -> tuple[list[dict[str, Any]], collections.Counter[str]]:
  """Rewrites solutions as code steps, and keeps those that are right.

  Args:
    rows: GSM8K's "question" and "answer".
    sandbox: runs each program.
    grader: compares its output with the row's answer.
    most_steps: solutions with more notes are left out; 0 leaves out none.

  Returns:
    Rows of "question" and "steps", and numbers of those left out, by reason.
  """
  left_out: collections.Counter[str] = collections.Counter()
  rewritten = []
  for row in rows:
    try:
      bodies, value = gsm8k.steps_of(row["question"], row["answer"])
    except gsm8k.Unreadable as error:
      left_out[str(error)] += 1
      continue
    # The last body only prints.
    if most_steps and len(bodies) - 1 > most_steps:
      left_out["it has more steps than asked for"] += 1
    else:
      rewritten.append((row, bodies, value))
  ran = sandbox.run([bodies for _, bodies, _ in rewritten])
  printed = [
    (str(value), result.stdout if result.status == "ok" else "")
    for (*_, value), result in zip(rewritten, ran, strict=True)
  ]
  verdicts = grader.grade(printed)
  kept = []
  for (row, *_), (_, stdout), verdict in zip(
    rewritten, printed, verdicts, strict=True
  ):
    if verdict != "equal":
      left_out["what the code prints is not the answer"] += 1
      continue
    kept.append(
      {
        "question": row["question"],
        "steps": gsm8k.solution_of(row, stdout),
      }
    )
  return kept, left_out


def _write(path: store.Path, rows: Iterable[Mapping[str, Any]]) -> None:
  lines = "".join(as_json(row) + "\n" for row in rows)
  store.write(path, lines.encode())


def read(source: str) -> list[Mapping[str, str]]:
  """Reads rows of GSM8K.

  Raises:
    ProblemError: a row has another form; one line, with its place.
  """
  rows = []
  for row in open_source(source)[1]:
    if row.error:
      raise ProblemError(f"{row.place}: {row.error}")
    fields = row.value if isinstance(row.value, Mapping) else {}
    if not all(isinstance(fields.get(k), str) for k in ("question", "answer")):
      raise ProblemError(
        f"{row.place}: want GSM8K's fields, question and answer, both texts"
      )
    rows.append(fields)
  if not rows:
    raise ProblemError(f"{source} has no rows")
  return rows


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise ValueError(
      f"{argv[1]!r} is no flag; the rows are given as --gsm8k={argv[1]}"
    )
  given = flags.FLAGS
  output = store.path(given.output)
  # Early, since programs run for minutes before the model is needed.
  tokenizer = load_tokenizer(given.policy)
  models.check_rows(tokenizer, given.policy)
  models.check_saved(tokenizer, given.policy)
  store.check(output)
  parts = divide(read(given.gsm8k))
  with Sandbox() as sandbox, Grader() as grader:
    solutions, left_out = rewrite(
      parts.pop("cold_start"), sandbox, grader, given.most_steps
    )
  reasons = "; ".join(f"{n}: {why}" for why, n in left_out.most_common())
  if not solutions:
    raise ValueError(
      f"no solution of {given.gsm8k} can be rewritten ({reasons}): give some "
      "that have GSM8K's calculator notes, as in 1+2=<<1+2=3>>3"
    )
  for name, part in parts.items():
    _write(output / f"{name}.jsonl", part)
  _write(output / "cold_start.jsonl", solutions)
  store.write(output / "left_out.json", json.dumps(left_out).encode())
  logging.info(
    "%d solutions to learn from, %d left out (%s)",
    len(solutions),
    left_out.total(),
    reasons,
  )
  own_data.train_policy(
    solutions,
    policy=given.policy,
    folder=output / "policy",
    checkpoints=output / "checkpoints",
    config=dataclasses.replace(TRAIN, epochs=given.epochs),
    dtype=given.dtype,
  )


def define_flags() -> None:
  """Defines the flags; not at import, since `main.py` has flags of its own."""
  flags.DEFINE_string(
    "gsm8k", "hf:openai/gsm8k/main/train", "Source of GSM8K's training rows."
  )
  flags.DEFINE_string("policy", None, "Model to train: a folder or Hub name.")
  flags.DEFINE_string("output", None, "Folder for the data and the policy.")
  flags.DEFINE_integer("epochs", 3, "Passes over the solutions.", 1)
  flags.DEFINE_integer(
    "most_steps", 0, "Most calculator notes of a solution; 0 is all.", 0
  )
  flags.DEFINE_enum(
    "dtype", "bfloat16", ["bfloat16", "float32"], "Dtype of activations."
  )
  flags.mark_flags_as_required(["policy", "output"])


if __name__ == "__main__":
  define_flags()
  with outside.program("rstar_jax.tools.cold_start"):
    app.run(main)
