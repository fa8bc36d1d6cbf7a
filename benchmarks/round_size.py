"""What the records of a round cost, with made-up trees of the paper's shape.

  python -m benchmarks.round_size --problems=2000,8000
  python -m benchmarks.round_size --formats

16 rollouts of 8 candidates, at most 16 steps deep, make trees of about a
thousand nodes; their words are random, with the frequencies of a language, so
that they compress worse than what a model writes. A few hundred trees are made,
and each stands for many problems: only its id differs.

Each stage is a process of its own, as a run that is started again. Prints a
JSON line for each: CPU seconds and peak resident memory, in MB, of the process
and of the largest of those that it started. `--formats` compares ways to write
such trees: bytes a node, and MB of JSON a CPU second, written and read.
"""

import functools
import gzip
import json
import multiprocessing
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import app, flags

from rstar_jax.data import outcomes, pools
from rstar_jax.search.tree import ANSWER, RIGHT, STEP, WRONG, Child, Tree
from rstar_jax.storage import json_io, layout, manifests, records, store
from rstar_jax.types import Problem

_PROBLEMS = flags.DEFINE_list(
  "problems", ["500"], "Numbers of problems of the rounds."
)
_FOLDER = flags.DEFINE_string(
  "folder", None, "Folder to write to; default a temporary one."
)
_PROCESSES = flags.DEFINE_integer("processes", 1, "Processes of the maps.", 1)
_FORMATS = flags.DEFINE_bool("formats", False, "Compare file formats instead.")

# Distinct trees, and problems of a file, as the paper's preset has them.
_TREES, _PER_FILE = 100, 50
_ROLLOUTS, _CANDIDATES, _DEPTH = 16, 8, 16
_WORDS = 3000
# Batches of pairs that are made.
_BATCHES = 10


@functools.cache
def _words() -> tuple[list[str], np.ndarray]:
  """Returns words, and their cumulated frequencies."""
  rng = np.random.default_rng(0)
  letters = np.array(list("etaoinshrdlucmfwyp"))
  words = [
    "".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(_WORDS)
  ]
  weights = 1 / np.arange(1, _WORDS + 1) ** 0.9
  return words, np.cumsum(weights / weights.sum())


def _text(rng: np.random.Generator, count: int) -> str:
  words, cumulated = _words()
  places = np.searchsorted(cumulated, rng.random(count))
  return " ".join(words[min(n, _WORDS - 1)] for n in places)


def _child(rng: np.random.Generator, depth: int) -> Child:
  """Returns a step, or an answer: the deeper, the likelier."""
  name, other = _text(rng, 1), _text(rng, 1)
  text = f"# {_text(rng, 8)}\n{name} = {rng.integers(500)} * {other}\n"
  text += "<end_of_step>\n"
  value, logprob = 2 * rng.random() - 1, -20 * rng.random()
  if depth < _DEPTH and rng.random() > 0.02 * depth:
    return Child(text, STEP, logprob, value, 1, value)
  answer = str(rng.integers(9))
  verdict = RIGHT if rng.random() < 0.4 else WRONG
  text += f"<answer>\\boxed{{{answer}}}<end_of_answer>"
  return Child(text, ANSWER, logprob, value, 1, value, answer, verdict, 1.0)


def make_tree(seed: int) -> Tree:
  """Returns a made-up tree."""
  rng = np.random.default_rng(seed)
  tree = Tree(Problem(f"p{seed}", _text(rng, 60), "7", "made up", seed % 5))
  for _ in range(_ROLLOUTS):
    node = 0
    while not tree.terminal[node]:
      if not tree.num_children[node]:
        depth = int(tree.depth[node]) + 1
        tree.add_children(
          node, [_child(rng, depth) for _ in range(_CANDIDATES)]
        )
        tree.tokens += 40 * _CANDIDATES
      node = int(rng.choice(tree.children(node)))
    for each in tree.path(node):
      tree.visits[each] += 1
      tree.value_sum[each] += float(tree.correct[node])
    tree.end_rollout(node)
  return tree


def _write(workdir: pathlib.Path, problems: int, processes: int) -> None:
  """Writes the files of trees, as a search does."""
  made = [make_tree(seed).to_record() for seed in range(_TREES)]
  total = -(-problems // _PER_FILE)

  def rows(file: int) -> Iterator[dict[str, Any]]:
    for number in range(file * _PER_FILE, min(file + 1, total) * _PER_FILE):
      if number < problems:
        row = made[number % _TREES]
        yield {**row, "problem": row["problem"] | {"id": f"p{number}"}}

  folder = layout.stage_folder(workdir, 1, "trees")
  for file in range(total):
    part = list(rows(file))
    path = folder / records.shard_name(file, total)
    records.write_shard(path, part, outcomes.header_of(part))


def _finish(workdir: pathlib.Path, problems: int, processes: int) -> None:
  """Counts what was solved, and writes the manifest."""
  folder = layout.stage_folder(workdir, 1, "trees")
  stats = outcomes.counts(pools.outcomes_of([folder]))
  assert stats["problems"] == problems
  manifests.write(folder, stats)


def _context(workdir: pathlib.Path, processes: int) -> Any:
  from rstar_jax.config.schema import Config
  from rstar_jax.hf import folders, tokenizers
  from rstar_jax.pipeline import work
  from rstar_jax.pipeline.context import Context
  from rstar_jax.storage import metrics

  return Context(
    Config(),
    workdir,
    metrics.NullWriter(),
    *(None, None),
    tokenizer=tokenizers.load_tokenizer(folders.BASE_MODEL),
    work=work.Local(processes),
  )


def _extract(workdir: pathlib.Path, problems: int, processes: int) -> None:
  """Makes solutions and pairs, or finds that they are there."""
  from rstar_jax.pipeline import extract

  context = _context(workdir, processes)
  extract.extract(context, 1)
  info = manifests.read(context.folder(1, "sft"))
  assert info["problems"] == problems


def _pack_solutions(
  workdir: pathlib.Path, problems: int, processes: int
) -> None:
  """Writes the rows that SFT reads."""
  from rstar_jax.pipeline import sft

  rows = layout.stage_folder(workdir, 1, "policy") / layout.ROWS
  info = sft.pack(_context(workdir, processes), 1, rows)
  manifests.write(rows, info)


def _pack_pairs(workdir: pathlib.Path, problems: int, processes: int) -> None:
  """Writes what the PPM reads."""
  from rstar_jax.pipeline import ppm

  rows = layout.stage_folder(workdir, 1, "ppm") / layout.ROWS
  context = _context(workdir, processes)
  info = ppm.pack(context, 1, "ppm", rows, context.config.ppm)
  manifests.write(rows, info)


def _batches(workdir: pathlib.Path, problems: int, processes: int) -> None:
  """Starts again with what is packed, and makes some batches of pairs."""
  from rstar_jax import rng
  from rstar_jax.data import sides, stored_sides

  rows = layout.stage_folder(workdir, 1, "ppm") / layout.ROWS
  info = manifests.read(rows)
  config = _context(workdir, processes).config.ppm
  pairs = stored_sides.StoredSides(rows / info["training"])
  batch_at, count = sides.make_batches(
    *(pairs, config.batch_size, 1, rng.seed_for(0, "ppm", 1)),
    length=config.length,
    size=info["sizes"][0],
  )
  for k in range(0, count, -(-count // _BATCHES)):
    assert batch_at(k)["weight"].any()


def _report(workdir: pathlib.Path, problems: int, processes: int) -> None:
  """Writes the page."""
  from rstar_jax.report import page

  page.write(workdir)


def _status(workdir: pathlib.Path, problems: int, processes: int) -> None:
  """Looks at the run's progress."""
  from rstar_jax.config import identity
  from rstar_jax.report import progress, status

  config = _context(workdir, processes).config
  store.write(
    workdir / layout.CONFIG, json.dumps(identity.to_json(config)).encode()
  )
  assert status.render(progress.look(workdir))


def _mastered(workdir: pathlib.Path, problems: int, processes: int) -> None:
  """Finds the problems that a next round leaves out."""
  folder = layout.stage_folder(workdir, 1, "trees")
  assert manifests.read(folder) is not None
  found = {e.problem_id for e in pools.outcomes_of([folder]) if e.mastered}
  assert len(found) < problems


# The stages of a round, each in a process of its own.
_STAGES = {
  "write trees": _write,
  "finish the round": _finish,
  "extract": _extract,
  "extract, started again": _extract,
  "mastered problems": _mastered,
  "pack solutions": _pack_solutions,
  "pack pairs": _pack_pairs,
  "batches of pairs": _batches,
  "report": _report,
  "status": _status,
}


def _measured(stage: Callable, *args: Any) -> dict[str, float]:
  """Runs a stage in a new process; returns what it took."""
  context = multiprocessing.get_context("spawn")
  with context.Pool(1) as pool:
    return pool.apply(_run, (stage, *args))


def _run(stage: Callable, *args: Any) -> dict[str, float]:
  began = time.monotonic()
  stage(*args)
  found: dict[str, float] = {"seconds": time.monotonic() - began}
  for name, who in (
    ("own", resource.RUSAGE_SELF),
    ("others", resource.RUSAGE_CHILDREN),
  ):
    used = resource.getrusage(who)
    found[f"{name}_cpu"] = used.ru_utime + used.ru_stime
    found[f"{name}_mb"] = used.ru_maxrss / 1024
  return {key: round(value, 1) for key, value in found.items()}


def _round(workdir: pathlib.Path, problems: int, processes: int) -> None:
  for name, stage in _STAGES.items():
    found = _measured(stage, workdir, problems, processes)
    line = {"stage": name, "problems": problems, **found}
    print(json.dumps(line), flush=True)
  for name in ("trees", "sft", "pairs", "policy", "ppm"):
    folder = layout.stage_folder(workdir, 1, name)
    size = sum(version.size for version in store.files(folder).values())
    print(json.dumps({"folder": name, "mb": round(size / 1e6, 1)}))


def _compare() -> None:
  from array_record.python import array_record_module

  zstd = records.zstd
  trees = [make_tree(seed) for seed in range(_PER_FILE)]
  nodes = sum(map(len, trees))
  lines = [json_io.line(tree.to_record()) for tree in trees]
  body = b"".join(lines)
  file = pathlib.Path(tempfile.mkdtemp()) / "rows"

  def write_array_record() -> bytes:
    writer = array_record_module.ArrayRecordWriter(
      str(file), "group_size:1,zstd:3"
    )
    for text in lines:
      writer.write(text)
    writer.close()
    return file.read_bytes()

  def read_array_record(_: bytes) -> None:
    reader = array_record_module.ArrayRecordReader(str(file))
    for number in range(reader.num_records()):
      reader.read([number])
    reader.close()

  ways: dict[str, tuple[Callable, Callable]] = {
    "JSON lines": (lambda: body, lambda data: data),
    **{
      f"gzip {n}": (
        lambda n=n: gzip.compress(body, n, mtime=0),
        gzip.decompress,
      )
      for n in (1, 6)
    },
    **{
      f"zstd {n}": (lambda n=n: zstd.compress(body, n), zstd.decompress)
      for n in (1, 3, 6, 9)
    },
    "array_record": (write_array_record, read_array_record),
    "to JSON, from JSON": (
      lambda: b"".join(json_io.line(tree.to_record()) for tree in trees),
      lambda data: [json.loads(text) for text in data.splitlines()],
    ),
  }
  for name, (write, read) in ways.items():
    began = time.process_time()
    data = write()
    middle = time.process_time()
    read(data)
    wrote, took = middle - began, time.process_time() - middle
    line = {
      "format": name,
      "bytes_a_node": round(len(data) / nodes, 1),
      "write_mb_s": round(len(body) / 1e6 / max(wrote, 1e-6)),
      "read_mb_s": round(len(body) / 1e6 / max(took, 1e-6)),
    }
    print(json.dumps(line), flush=True)
  print(json.dumps({"nodes_a_tree": round(nodes / len(trees))}))


def main(_) -> None:
  if _FORMATS.value:
    _compare()
    return
  for problems in map(int, _PROBLEMS.value):
    with tempfile.TemporaryDirectory(dir=_FOLDER.value) as folder:
      _round(pathlib.Path(folder), problems, _PROCESSES.value)


if __name__ == "__main__":
  app.run(main)
