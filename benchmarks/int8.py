"""What int8 weights (engine.weights) change in what models say, and solve.

  python -m benchmarks.int8 --model=FOLDER --texts=FILE.jsonl --count=40
  python -m benchmarks.int8 --run=WORKDIR --count=100

--model: next-token probabilities of texts (a field "question", and "answer" if
there is one), against those of the same weights in float32. A JSON line for
each kind of model, over all tokens but the first of each text:

  kl: mean of the divergence of its probabilities, in nats
  logprob: mean of the absolute difference in the text's own next tokens
  agree: share of the tokens where the likeliest next token is the same
  perplexity: of the text

--run: a run of configs/tiny.py. The models of a round search problems of the
generator, with floats and with int8 and the same seeds, and its PPM values the
pairs that it was not trained on. JSON lines: "solved", a paired comparison of
the two (int8 first) and how often they chose the same text; "pairs", the
accuracy of each.
"""

import dataclasses
import itertools
import json
import pathlib

import jax
import numpy as np
from absl import app, flags
from flax import nnx

from benchmarks import lines
from configs import tiny
from rstar_jax.data import held_out, sides
from rstar_jax.data.synthetic import generator
from rstar_jax.evaluation import intervals
from rstar_jax.hf import folders
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.models import int8
from rstar_jax.models.kernels import build, cpu
from rstar_jax.models.transformer import Transformer, reconfigured
from rstar_jax.pipeline import context as session
from rstar_jax.pipeline import ppm, reading, solve
from rstar_jax.training.ppm import pair_accuracy

_MODEL = flags.DEFINE_string("model", None, "Folder or name of a model.")
_TEXTS = flags.DEFINE_string("texts", None, "File of texts, as JSON lines.")
_LENGTH = flags.DEFINE_integer("length", 256, "Most tokens of a text.", 2)
_RUN = flags.DEFINE_string("run", None, "Workdir of a run of configs/tiny.py.")
_ROUND = flags.DEFINE_integer("round", 4, "Round of the run.", 1)
_COUNT = flags.DEFINE_integer("count", 40, "Number of texts or problems.", 1)

KINDS = tuple(itertools.product(("float32", "bfloat16"), ("float", "int8")))


def in_int8(model: Transformer) -> Transformer:
  graphdef, params = nnx.split(model)
  return nnx.merge(graphdef, int8.quantized(params))


def load(dtype: str, weights: str) -> Transformer:
  model = folders.load_policy(_MODEL.value, dtype)
  if jax.default_backend() == "cpu" and cpu.supports(model.config):
    if build.available():
      build.load()
      model = reconfigured(model, native=True)
  return in_int8(model) if weights == "int8" else model


def logprobs(model: Transformer, texts: list[list[int]]) -> list[np.ndarray]:
  """Returns float32 [T, V] of each text of T tokens."""
  graphdef, params = nnx.split(model)
  run = jax.jit(
    lambda params, ids: jax.nn.log_softmax(nnx.merge(graphdef, params)(ids))
  )
  found = []
  for ids in texts:
    row = np.zeros((1, _LENGTH.value), np.int32)
    row[0, : len(ids)] = ids
    found.append(np.asarray(run(params, row)[0, : len(ids)]))
  return found


def of_texts() -> None:
  tokenizer = load_tokenizer(_MODEL.value, add_markers=False)
  with open(_TEXTS.value, encoding="utf-8") as file:
    rows = [json.loads(line) for line in itertools.islice(file, _COUNT.value)]
  texts = [
    tokenizer.encode("\n".join([each["question"], each.get("answer", "")]))
    for each in rows
  ]
  texts = [list(ids[: _LENGTH.value]) for ids in texts]
  want = None
  for dtype, weights in KINDS:
    found = logprobs(load(dtype, weights), texts)
    want = want or found
    kl, off, agree, own = [], [], [], []
    for ids, one, other in zip(texts, want, found, strict=True):
      one, other = one[:-1], other[:-1]
      kl += (np.exp(one) * (one - other)).sum(-1).tolist()
      agree += (one.argmax(-1) == other.argmax(-1)).tolist()
      at = np.arange(len(one)), np.array(ids[1:])
      off += abs(one[at] - other[at]).tolist()
      own += other[at].tolist()
    lines.show(
      "texts",
      dtype=dtype,
      weights=weights,
      texts=len(texts),
      tokens=len(kl),
      kl=float(np.mean(kl)),
      logprob=float(np.mean(off)),
      agree=float(np.mean(agree)),
      perplexity=float(np.exp(-np.mean(own))),
    )


def of_run() -> None:
  config = tiny.get_config()
  problems = generator.problems("test", _COUNT.value, config.seed)
  solved, pairs, texts = {}, {}, []
  for weights in ("float", "int8"):
    config.engine.weights = weights
    with session.open_context(config, pathlib.Path(_RUN.value)) as context:
      found = solve.solve_all(
        context, _ROUND.value, [each.question for each in problems]
      )
      texts.append([each and each.steps for each in found])
      verdicts = context.grader.grade(
        [
          (problem.answer, each.answer if each else "")
          for problem, each in zip(problems, found, strict=True)
        ]
      )
      kept = [
        each
        for each in reading.read_pairs(context.finished(_ROUND.value, "pairs"))
        if held_out.is_held_out(
          config.seed, each.problem_id, ppm.one_in(config)
        )
      ]
      model = folders.load_ppm(context.finished(_ROUND.value, "ppm"))
      pairs[weights] = pair_accuracy(
        in_int8(model) if weights == "int8" else model,
        sides.encode_pairs(context.tokenizer, kept, config.ppm.length),
        length=config.ppm.length,
      )
    solved[weights] = {
      problem.id: verdict == "equal"
      for problem, verdict in zip(problems, verdicts, strict=True)
    }
  found = intervals.compare(solved["int8"], solved["float"], config.seed)
  same = float(
    np.mean([one == other for one, other in zip(*texts, strict=True)])
  )
  lines.show("solved", **dataclasses.asdict(found), same=same)
  for weights, each in pairs.items():
    lines.show("pairs", weights=weights, **each)


def main(_):
  if _MODEL.value:
    of_texts()
  if _RUN.value:
    of_run()


if __name__ == "__main__":
  app.run(main)
