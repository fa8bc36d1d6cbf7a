r"""A run's models as a model of EleutherAI's lm-evaluation-harness.

  pip install 'rstar_jax[harness]'
  python -m rstar_jax.tools.harness run --model rstar \
    --tasks gsm8k_cot_zeroshot \
    --model_args config=configs/tiny.py,workdir=runs/tiny

Generative tasks are solved as by `rstar_jax solve`. The question is taken from
the task's row, since the policy was trained on one prompt, without examples.
Tasks that compare likelihoods of given texts cannot measure a search, and are
refused.
"""

import atexit
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from rstar_jax import outside
from rstar_jax.config import flag
from rstar_jax.data import shapes
from rstar_jax.pipeline import checks, run, solve
from rstar_jax.pipeline import context as session
from rstar_jax.storage import store


def asked(row: Mapping[str, Any], prompt: str) -> str:
  """Returns the row's question, or else the whole prompt."""
  return shapes.question_of(row) or prompt


def written(solution: solve.Solution | None) -> str:
  """Returns a solution as text, with its answer in the form that tasks parse.

  Args:
    solution: None where no answer was reached, which gives an empty text.
  """
  if solution is None:
    return ""
  steps, answer = "".join(solution.steps), solution.answer
  return f"{steps.rstrip()}\nThe answer is {answer}.\n#### {answer}"


def answer_all(
  context: session.Context, round_: int, requests: Sequence[Any]
) -> list[str]:
  """Returns the text for each request: `doc`, and `args` of prompt and options.

  Equal questions are solved once.
  """
  questions = [asked(each.doc, each.args[0]) for each in requests]
  distinct = list(dict.fromkeys(questions))
  solutions = solve.solve_all(context, round_, distinct)
  texts = dict(zip(distinct, map(written, solutions), strict=True))
  return [texts[each] for each in questions]


def define_model() -> type:
  """Registers the model "rstar", and returns its class.

  Raises:
    ImportError: lm_eval is not installed.
  """
  from lm_eval.api.model import LM
  from lm_eval.api.registry import register_model

  @register_model("rstar")
  class Rstar(LM):
    """A run's policy, search and PPM."""

    def __init__(
      self, config: str, workdir: str, round: int | None = None, **ignored: Any
    ):
      """Opens a run.

      Args:
        config: the run's config file, as in `--config`.
        workdir: the run's folder.
        round: round of the models; None is the newest. 0 is the base model, for
          which the folder need not hold a run.
        **ignored: batch size and device, which the config sets.
      """
      del ignored
      super().__init__()
      if round is None or int(round) > 0:
        checks.find_run(store.path(workdir))
      stack = contextlib.ExitStack()
      # The harness does not close models, and threads must end before the
      # interpreter is finalised.
      atexit.register(stack.close)
      self._context = stack.enter_context(
        run.open_run(flag.load_config(config), workdir, reads=True)
      )
      self._round = (
        run.newest_round(self._context) if round is None else int(round)
      )

    def generate_until(
      self, requests: list, disable_tqdm: bool = False
    ) -> list[str]:
      del disable_tqdm
      return answer_all(self._context, self._round, requests)

    def loglikelihood(self, requests: list) -> list:
      raise NotImplementedError(
        "a search has no likelihood of a given text: choose a task whose "
        "output_type is generate_until"
      )

    loglikelihood_rolling = loglikelihood

  return Rstar


def main() -> None:
  """Runs the harness's command line, with the model "rstar" registered."""
  try:
    define_model()
  except ImportError as error:
    raise SystemExit(
      f"{error}: pip install 'rstar_jax[harness]' first"
    ) from error
  from lm_eval.__main__ import cli_evaluate

  cli_evaluate()


if __name__ == "__main__":
  with outside.program("rstar_jax.tools.harness"):
    main()
