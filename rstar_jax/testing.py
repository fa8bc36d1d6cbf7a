"""Small substitutes for tests and colabs. Nothing here imports jax."""

import contextlib
import dataclasses
import io
import threading
from collections.abc import Sequence

import numpy as np

from rstar_jax import rng, types
from rstar_jax.models.config import ModelConfig
from rstar_jax.steps import grammar, prompts

# Serialises the redirection of the process's standard output.
_STDOUT = threading.Lock()


class ByteTokenizer:
  """Encodes bytes as ids: pad is 0, eos 1, then step markers, then bytes."""

  pad_id = 0
  eos_id = 1
  bos_ids = ()
  misread_in = ()
  prompt = staticmethod(prompts.prompt)

  def __init__(self):
    self._ids = {m: 2 + i for i, m in enumerate(grammar.MARKERS)}
    self._markers = {i: m for m, i in self._ids.items()}
    self._offset = 2 + len(grammar.MARKERS)
    self.vocab_size = self._offset + 256

  def encode(self, text: str) -> list[int]:
    ids, start = [], 0
    for match in grammar.MARKER.finditer(text):
      ids += [self._offset + b for b in text[start : match.start()].encode()]
      ids.append(self._ids[match.group()])
      start = match.end()
    return ids + [self._offset + b for b in text[start:].encode()]

  def decode(self, ids: Sequence[int]) -> str:
    pieces = [
      self._markers[i].encode()
      if i in self._markers
      else bytes([i - self._offset])
      for i in ids
      if i not in (self.pad_id, self.eos_id)
    ]
    return b"".join(pieces).decode(errors="replace")

  def id_of(self, marker: str) -> int:
    return self._ids[marker]


def tiny_model(**overrides) -> ModelConfig:
  """Returns a small model config; sizes are prime if heads allow it."""
  return ModelConfig(
    **{
      "vocab_size": ByteTokenizer().vocab_size,
      "num_layers": 2,
      "embed_dim": 24,
      "num_heads": 6,
      "num_kv_heads": 2,
      "head_dim": 4,
      "mlp_dim": 37,
      "max_length": 256,
    }
    | overrides
  )


@dataclasses.dataclass(frozen=True)
class ToySum:
  """A scripted policy over an enumerable tree of tiny programs.

  Each code node runs one of `options` on x; the last one also prints x and
  closes the code. An answer boxes the printed number plus one of `offsets`.
  Options may fail, repeat or be malformed. The text depends only on the prefix
  and the seed.

  Attributes:
    options: statements, e.g. "x += 1".
    levels: number of code nodes of a solution.
    offsets: numbers that answers add to the printed number.
    covers: whether candidate i is option i (modulo their number), so that one
      expansion finds all options; else the seed draws options.
  """

  options: tuple[str, ...] = ("x += 1", "x += 2", "x += 3")
  levels: int = 2
  offsets: tuple[int, ...] = (0,)
  covers: bool = False

  def __call__(self, questions, prefixes, seeds):
    return [
      [
        self._candidate(prefix, i if self.covers else int(seed))
        for i, seed in enumerate(row)
      ]
      for _, prefix, row in zip(questions, prefixes, seeds, strict=True)
    ]

  def block(self, questions, prefixes, seeds):
    """Expands like a policy that stops only at the end of the code."""
    rows = []
    for prefix, row in zip(prefixes, seeds, strict=True):
      rows.append([])
      for seed in row:
        nodes, texts, ids = tuple(prefix), [], ()
        while True:
          draw = rng.seed_for(int(seed), len(texts))
          last = self._candidate(nodes, draw)
          texts.append(last.text)
          ids += last.token_ids
          nodes = (*nodes, last.text)
          if last.finish != "step":
            break
        text = "".join(texts)
        rows[-1].append(types.Candidate(text, ids, last.logprob, last.finish))
    return rows

  def _candidate(self, prefix: types.Prefix, draw: int) -> types.Candidate:
    if prefix and grammar.END_OF_CODE in prefix[-1]:
      shown = (
        prefix[-1].split(grammar.OUTPUT)[1].split(grammar.END_OF_OUTPUT)[0]
      )
      number = int(shown) + self.offsets[draw % len(self.offsets)]
      text = (
        f"{grammar.ANSWER}It is \\boxed{{{number}}}.{grammar.END_OF_ANSWER}"
      )
      finish = "answer"
    else:
      opening = "\n" if prefix else f"{grammar.CODE}\nx = 0\n"
      text = opening + self.options[draw % len(self.options)] + "\n"
      if len(prefix) + 1 < self.levels:
        text, finish = text + grammar.END_OF_STEP, "step"
      else:
        text, finish = f"{text}print(x)\n{grammar.END_OF_CODE}", "code"
    return types.Candidate(
      text, tuple(text.encode()), -float(len(text)), finish
    )


def run_trusted(programs: Sequence[Sequence[str]]) -> list[types.ExecResult]:
  """Runs trusted programs by `exec`, without a sandbox."""
  results = []
  for program in programs:
    scope, out = {"__name__": "__main__"}, io.StringIO()
    try:
      for step in program:
        out = io.StringIO()  # Only the last step's output counts.
        with _STDOUT, contextlib.redirect_stdout(out):
          exec(step, scope)
    except Exception as error:
      message = f"{type(error).__name__}: {error}"
      results.append(types.ExecResult("error", "", message))
    else:
      results.append(types.ExecResult("ok", out.getvalue().removesuffix("\n")))
  return results


def grade_equal(pairs: Sequence[tuple[str, str]]) -> list[types.Verdict]:
  """Grades by string equality."""
  return ["equal" if gold == each else "different" for gold, each in pairs]


def score_by_hash(questions, prefixes, rows):
  """Scores each path by a hash of its text: a fixed PPM without meaning."""
  values = []
  for question, prefix, row in zip(questions, prefixes, rows, strict=True):
    draws = [rng.seed_for(0, question, *prefix, step) for step in row]
    values.append(np.array([d / 2**31 - 1 for d in draws], np.float32))
  return values
