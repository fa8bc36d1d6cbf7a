"""A published reward model as the search's `Score`, in the PPM's place."""

import concurrent.futures
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rstar_jax.config.schema import EngineConfig
from rstar_jax.hf import folders, reward_heads
from rstar_jax.hf.reward_heads import Kind
from rstar_jax.hf.tokenizers import load_tokenizer
from rstar_jax.inference import futures, reward_forms
from rstar_jax.inference.engine_client import ServedScores
from rstar_jax.inference.protocols import ONE_LABEL, Reading
from rstar_jax.inference.reward_forms import Form
from rstar_jax.inference.scoring import ScoringEngine
from rstar_jax.models.transformer import Head, Transformer
from rstar_jax.steps.tokenizer import HfTokenizer
from rstar_jax.types import Prefix


@dataclasses.dataclass(frozen=True)
class Published:
  """A published reward model, before its weights are loaded.

  Attributes:
    folder: its folder, or name on the hub.
    form: how it reads.
    tokenizer: its own, without added markers.
    answers: ids of the tokens of a good and of a bad step, of a causal model.
    head: the form of its values; see `Transformer`.
    reading: how a server gives its raw values.
    unread_id: of a model that reads a dialogue to its end, the pad_token_id of
      its config.json, if it has one. `transformers` takes the value at the last
      token that is another, even where the template ends with that id.
  """

  folder: str
  form: Form
  tokenizer: HfTokenizer
  answers: tuple[int, int] | None = None
  head: Head = "odds"
  reading: Reading = ONE_LABEL
  unread_id: int | None = None

  def path(self, question: str, nodes: Prefix) -> list[int]:
    """Returns the ids up to where the last of nodes is valued."""
    steps = reward_forms.texts_of(nodes)
    ids = list(self.form.read(self.tokenizer, question, steps))
    while ids and ids[-1] == self.unread_id:
      ids.pop()
    return ids

  def model(self, dtype: jnp.dtype, **options: Any) -> Transformer:
    """Loads the model; see `folders.load_policy` for the options."""
    return folders.load_reward_model(
      self.folder, dtype, answers=self.answers, **options
    )


def described(name: str) -> Published:
  """Describes a published reward model; see `load_reward`."""
  named, folder = reward_forms.split(name)
  fields = folders.merged_fields(folder)
  kind = reward_heads.kind_of(fields, folder)
  form = reward_forms.FORMS.get(named) or reward_forms.of(kind)
  if form is None:
    raise ValueError(
      f"{folder} is a causal model: say how it is asked, as in rlhflow:NAME or "
      f"math_shepherd:NAME; known are {', '.join(reward_forms.FORMS)}"
    )
  tokenizer = load_tokenizer(folder, add_markers=False)
  answers = form.answers(tokenizer) if form.answers else None
  one = kind == "outcome" and reward_heads.classes(fields, folder) is None
  return Published(
    folder=folder,
    form=form,
    tokenizer=tokenizer,
    answers=answers,
    head=fields.get(reward_heads.HEAD, "logit") if one else "odds",
    reading=_reading(kind, fields, folder, answers),
    unread_id=fields.get("pad_token_id") if form.whole else None,
  )


def _reading(
  kind: Kind,
  fields: Mapping[str, Any],
  folder: str,
  answers: tuple[int, int] | None,
) -> Reading:
  match kind:
    case "answers" if answers:
      return Reading("answers", answers)
    case "outcome":
      return Reading("classify", reward_heads.classes(fields, folder))
    case "steps":
      return Reading("token_classify", reward_heads.classes(fields, folder))
    case "qwen":
      return Reading("token_classify", (1, 0))
  return Reading("token_classify")


def load_reward(
  name: str,
  config: EngineConfig | None = None,
  dtype: jnp.dtype = jnp.float32,
  *,
  mesh: jax.sharding.Mesh | None = None,
  **options: Any,
) -> "RewardModel":
  """Loads a published reward model as a `Score`.

  Args:
    name: a folder or a name on the hub; or FORM:FOLDER with one of
      `reward_forms.FORMS`, where the folder does not tell how it is asked.
    config: sizes of the program; None is the default.
    dtype: of parameters and activations.
    mesh: shards the parameters; None is one device.
    **options: of the engine: busy, lock; see `PagedModel`.

  Raises:
    ValueError: it is no reward model that is read here, or its form is missing.
  """
  found = described(name)
  model = found.model(dtype, mesh=mesh)
  engine = ScoringEngine(model, config or EngineConfig(), mesh=mesh, **options)
  return RewardModel(engine, found)


def is_of_others(name: str) -> bool:
  """Returns whether a name is one for `load_reward`, and not our own PPM."""
  form, folder = reward_forms.split(name)
  if form:
    return True
  return reward_heads.HEAD not in folders.merged_fields(folder)


class RewardModel(futures.OfRows):
  """Scores partial solutions in a form of the model's own; any thread may ask.

  Its tokenizer is not the policy's, so that steps go in as text. The common
  prefix of paths is computed once: mostly all but the newest step.

  Attributes:
    engine: values ids.
  """

  def __init__(self, engine: ScoringEngine | ServedScores, model: Published):
    """Makes the callable.

    Args:
      engine: of the model.
      model: how it reads.
    """
    self.engine = engine
    self._model = model

  def submit(
    self, question: str, prefix: Prefix, steps: Sequence[str]
  ) -> concurrent.futures.Future[np.ndarray]:
    """Asks for the values of prefix + step, for each of C steps.

    Args:
      question: plain text.
      prefix: node texts.
      steps: node texts, of any length.

    Returns:
      float32 [C] in [-1, 1], at the path's last token: 2 p - 1 for a model that
      gives the probability p of a good step.
    """
    paths = [self._model.path(question, (*prefix, each)) for each in steps]
    return self.engine.submit(paths, tree=question)
