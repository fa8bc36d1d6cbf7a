"""The places where text from outside comes in, each as a function of an input.

An entry gets a random source, makes an input of it, and reads it as a run does.
It returns what became of the input:

  used        it is what it should be, or was put right
  set aside   it was left out, and what is beside it was used
  refused     the run would not begin: one line says why

and raises whatever would end a run that has begun, or if what is beside the
input is lost, or if what came out is not valid.
"""

import contextlib
import functools
import pathlib
import random
from collections.abc import Callable, Iterator
from typing import Any

from tests.fuzz.data import Data, Models
from tests.fuzz.hostile import Outcome
from tests.fuzz.runs import Runs
from tests.fuzz.servers import Servers
from tests.fuzz.texts import Texts

Entry = Callable[[random.Random], Outcome]


@contextlib.contextmanager
def opened(folder: pathlib.Path, tokenizer: Any) -> Iterator[dict[str, Entry]]:
  """Provides the entries by name.

  Args:
    folder: for files, empty.
    tokenizer: the package's.
  """
  servers = Servers(folder)
  data, models, runs = Data(folder), Models(folder), Runs(folder)
  texts = Texts(tokenizer)
  try:
    yield {
      "a server's answer": servers.body,
      "a server's bytes": servers.response,
      "problems, JSON lines": data.json_lines,
      "problems, a JSON list": data.json_list,
      "problems, CSV": data.csv,
      "problems, a table": data.table,
      "problems, compressed": data.compressed,
      "released solutions": data.solutions,
      "released pairs": data.pairs,
      "labelled answers": data.labelled,
      "a model's JSON": models.json,
      "a pickle of weights": models.pickle,
      "a journal's line": runs.journal,
      "a journal's end": runs.half_a_journal,
      "a begun shard": runs.begun_shard,
      "metrics": runs.metrics,
      "a manifest": runs.manifest,
      "a shard": runs.shard,
      "a run's config": runs.config,
      "a program's output": texts.program,
      "a policy's text": texts.policy,
      "a tokenizer's input": texts.tokens,
      "a terminal": texts.terminal,
    }
  finally:
    servers.close()


def number(name: str, index: int, seed: int = 0) -> random.Random:
  """Returns the source of an input, by its entry and number."""
  return random.Random(f"{seed} {name} {index}")


tokenizer = functools.cache(lambda: _tokenizer())


def _tokenizer() -> Any:
  from rstar_jax.hf import folders
  from rstar_jax.steps.tokenizer import HfTokenizer

  return HfTokenizer(folders.BASE_MODEL)
