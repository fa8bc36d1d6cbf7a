"""How well answers are compared, and how fast, on pairs labelled by hand.

  python -m benchmarks.grading
  python -m benchmarks.grading --pairs=mine.jsonl --failures

Each grader sees each pair alone, one after another, in one process; those that
may hang run in a process that is killed at a deadline. The half kept apart was
not looked at while the grader was tuned: --failures lists those of the other
half only. "ms" is wall time of one pair; the pairs of the category "huge" are
made to hang a grader, and a second p99 leaves them out.
"""

import multiprocessing
import statistics
import time

from absl import app, flags

from rstar_jax import verify
from rstar_jax.grading import labelled

_PAIRS = flags.DEFINE_string(
  "pairs", "tests/grading/grading_pairs.jsonl", "Labelled pairs, as JSONL."
)
_FAILURES = flags.DEFINE_boolean(
  "failures", False, "List where ours is wrong on the tuning half."
)
_SECONDS = flags.DEFINE_float("seconds", 10.0, "Deadline of a baseline.", 0.1)
_ONLY = flags.DEFINE_boolean("only_ours", False, "Leave the baselines out.")


def plain_string(gold: str, predicted: str) -> bool:
  """The same text."""
  return gold.strip() == predicted.strip()


def plain_number(gold: str, predicted: str) -> bool:
  """The same text, or numbers that `float` reads as nearly the same."""
  try:
    return abs(float(gold) - float(predicted)) < 1e-6
  except ValueError:
    return plain_string(gold, predicted)


def math_verify_either(gold: str, predicted: str) -> bool:
  """math-verify as it comes, with its own limits, in either order."""
  import math_verify

  one, two = (math_verify.parse(f"${text}$") for text in (gold, predicted))
  return math_verify.verify(one, two) or math_verify.verify(two, one)


def _serve(function, connection) -> None:
  while True:
    try:
      connection.send(bool(function(*connection.recv())))
    except EOFError:
      return
    except Exception:
      connection.send(False)


class Killable:
  """A baseline in a process that is killed at a deadline."""

  def __init__(self, function, seconds: float):
    self._function, self._seconds = function, seconds
    self._process = None

  def __call__(self, pair: labelled.Pair) -> str:
    if self._process is None:
      context = multiprocessing.get_context("spawn")
      self._ours, theirs = context.Pipe()
      self._process = context.Process(
        target=_serve, args=(self._function, theirs), daemon=True
      )
      self._process.start()
      theirs.close()
    try:
      self._ours.send((pair.gold, pair.predicted))
      if self._ours.poll(self._seconds):
        return "equal" if self._ours.recv() else "different"
    except (EOFError, OSError):
      pass
    self.close()
    return "undecided"

  def close(self) -> None:
    if self._process is not None:
      self._process.kill()
      self._process.join()
      self._process = None


def measure(grade, pairs: list[labelled.Pair]) -> tuple[list, list]:
  """Returns the verdict on each pair and how many ms it took."""
  # Starts its process, so that no pair pays for that.
  grade(labelled.Pair(r"\sqrt{12}", r"2\sqrt{3}"))
  verdicts, times = [], []
  for pair in pairs:
    start = time.perf_counter()
    verdicts.append(grade(pair))
    times.append(1000 * (time.perf_counter() - start))
  return verdicts, times


def rows(name: str, pairs, verdicts, times) -> list[str]:
  """Returns lines of a table: one for each half, and one for both."""
  lines = []
  for half, wanted in (("tuning", (0,)), ("kept apart", (1,)), ("all", (0, 1))):
    at = [i for i, pair in enumerate(pairs) if pair.held_out in wanted]
    score = labelled.score([pairs[i] for i in at], [verdicts[i] for i in at])
    ms = sorted(times[i] for i in at)
    tame = sorted(times[i] for i in at if pairs[i].category != "huge")
    p99, p99_tame = (each[int(0.99 * (len(each) - 1))] for each in (ms, tame))
    lines.append(
      f"| {name} | {half} | {len(at)} | {score.precision:.3f} | "
      f"{score.recall:.3f} | {score.false_positives} | "
      f"{score.false_negatives} | {score.undecided} | "
      f"{statistics.median(ms):.2f} | {p99:.0f} | {p99_tame:.0f} |"
    )
  return lines


def main(_):
  pairs = labelled.read(_PAIRS.value)
  print(
    "| grader | half | pairs | precision | recall | FP | FN | undecided "
    "| p50 ms | p99 ms | p99 without huge |\n" + "|---" * 11 + "|"
  )
  with verify.Grader(workers=1) as grader:
    judge = {
      "ours": lambda pair: grader.grade([(pair.gold, pair.predicted)])[0]
    }
    if not _ONLY.value:
      judge |= {
        function.__name__: lambda pair, function=function: (
          "equal" if function(pair.gold, pair.predicted) else "different"
        )
        for function in (plain_string, plain_number)
      }
      judge["math_verify"] = Killable(math_verify_either, _SECONDS.value)
    for name, grade in judge.items():
      verdicts, times = measure(grade, pairs)
      print("\n".join(rows(name, pairs, verdicts, times)), flush=True)
      if name == "ours" and _FAILURES.value:
        for pair, verdict, ms in zip(pairs, verdicts, times, strict=True):
          if not pair.held_out and (verdict == "equal") != pair.equal:
            print(f"  {verdict} {ms:.0f} ms {pair}")
    if not _ONLY.value:
      judge["math_verify"].close()


if __name__ == "__main__":
  app.run(main)
