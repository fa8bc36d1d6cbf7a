"""Converts the heads of published reward models to a scalar head.

The softmax over two classes gives the good one sigmoid(x), where x is the
difference of the logits. So a head of two classes is a scalar head whose weight
is the difference of two rows; the same holds for the LM head of a model that
answers with one of two tokens. x is the *log-odds* of a good step.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np

from rstar_jax.hf.tensors import Index, Tensors
from rstar_jax.models.config import ModelConfig

# Kinds of heads: how each is stored, and the meaning of its outputs.
#   outcome     *ForSequenceClassification, read at the end of a dialogue
#   steps       *ForTokenClassification (TRL), read at each step's separator
#   qwen        Qwen2.5-Math-PRM, a hidden layer and two classes
#   qwen_rm     Qwen2.5-Math-RM, a hidden layer and one value
#   skywork     Skywork-o1-Open-PRM, a value head beside the LM head
#   answers     a causal model that answers with a good or a bad token
Kind = Literal["outcome", "steps", "qwen", "qwen_rm", "skywork", "answers"]

# By the suffix of the class's name; other classes are refused.
BY_CLASS: Mapping[str, Kind] = {
  "ForSequenceClassification": "outcome",
  "ForTokenClassification": "steps",
  "ForProcessRewardModel": "qwen",
  "ForRewardModel": "qwen_rm",
  "ForPrmModel": "skywork",
  "ForCausalLM": "answers",
}

# Names of classes, in any case. Other names are refused: a reward with a
# guessed sign is worse than none.
_GOOD = ("label_1", "good", "correct", "positive", "right", "true", "1", "+")
_BAD = ("label_0", "bad", "incorrect", "negative", "wrong", "false", "0", "-")
_VALUE = "v_head.summary"
# The field with the form of a PPM's scalar head, in config.json or in an
# adapter's file of weights. Only this package's PPMs have it.
HEAD = "rstar_head"


def kind_of(fields: Mapping[str, Any], where: str) -> Kind:
  """Returns the kind of a reward model by its config.json.

  Args:
    fields: fields of config.json.
    where: name of the file, for error messages.

  Raises:
    ValueError: it names no class that this package reads.
  """
  names = fields.get("architectures")
  kinds = {
    kind
    for name in (names if isinstance(names, list) else [])
    for end, kind in BY_CLASS.items()
    if str(name).endswith(end)
  }
  if len(kinds) != 1:
    raise ValueError(
      f"{where}: architectures={names} is none of a reward model; known are "
      f"{', '.join('*' + each for each in BY_CLASS)}"
    )
  return kinds.pop()


def labels(fields: Mapping[str, Any]) -> int:
  """Returns the number of a classifier's labels."""
  named = fields.get("id2label")
  # The number of labels takes precedence over their names.
  return fields.get(
    "num_labels", len(named) if isinstance(named, Mapping) else 2
  )


def classes(fields: Mapping[str, Any], where: str) -> tuple[int, int] | None:
  """Returns the indices of the good and the bad class, None for one label.

  Raises:
    ValueError: there are more than two classes, or their names are ambiguous.
  """
  count, named = labels(fields), fields.get("id2label") or {}
  if count == 1:
    return None
  if count == 2 and isinstance(named, Mapping):
    names = [str(named.get(str(i), f"LABEL_{i}")).lower() for i in range(2)]
    for good, bad in ((1, 0), (0, 1)):
      if names[good] in _GOOD and names[bad] in _BAD:
        return good, bad
  raise ValueError(
    f"{where}: num_labels={count} and id2label={named} are not one value, nor "
    'a bad and a good class; of two classes write id2label={"0": "bad", "1": '
    '"good"}, or the other way round'
  )


def read(
  fields: Mapping[str, Any],
  config: ModelConfig,
  weights: Tensors,
  where: str,
  answers: tuple[int, int] | None = None,
) -> tuple[str, Tensors]:
  """Returns the head of a reward model, and its tensors with that head.

  Args:
    fields: fields of config.json.
    config: the decoder's config, from these fields.
    weights: the tensors on disk.
    where: name of the file, for error messages.
    answers: ids of the tokens for a good and a bad step, for a causal model.

  Returns:
    The head, see `Transformer`; and tensors that `families.py` has rows for.

  Raises:
    ValueError: the file has no head that this package reads.
  """
  kind = kind_of(fields, where)
  names, scale = weights.names(), 1.0
  if kind == "outcome" and labels(fields) == 1:
    return fields.get(HEAD, "logit"), weights
  if kind == "skywork" or f"{_VALUE}.weight" in names:
    weight, pair = f"{_VALUE}.weight", None
  elif kind == "answers":
    if answers is None:
      raise ValueError(
        f"{where} is a causal model, which is a reward model if it answers "
        "with one of two tokens: say how it is asked, as in rlhflow:NAME or "
        "math_shepherd:NAME"
      )
    if config.logits_softcap:
      raise ValueError(
        f"{where}: final_logit_softcapping={config.logits_softcap:g} bends the "
        "logits, so that two answers are not one head: put it behind a server, "
        "config.servers.reward, with config.servers.compare=False"
      )
    scale = config.logits_scaling
    tied = "lm_head.weight" not in names
    weight = "model.embed_tokens.weight" if tied else "lm_head.weight"
    pair = answers
  elif kind in ("qwen", "qwen_rm"):
    weight = "score.2.weight"
    # Its config.json does not give the number of classes.
    pair = (1, 0) if kind == "qwen" else None
  else:
    weight, pair = "score.weight", classes(fields, where)
  bias = f"{weight.removesuffix('weight')}bias"
  head_tensors = {"score.weight": _row(weights, weight, pair)[None] / scale}
  head_tensors["score.bias"] = np.zeros(1, np.float32)
  if bias in names:
    head_tensors["score.bias"] = _row(weights, bias, pair)[None]
  hidden = {"lm_head.weight", weight, bias} - {"model.embed_tokens.weight"}
  head = "odds_mlp" if "score.0.weight" in names else "odds"
  return head, _WithHead(weights, head_tensors, hidden)


def _row(
  weights: Tensors, name: str, pair: tuple[int, int] | None
) -> np.ndarray:
  """Returns a tensor's one row, or its good row minus the bad one, float32."""
  if name not in weights.names():
    raise ValueError(f"the tensor {name} of the reward model's head is missing")
  shape = weights.shape(name)
  if pair is None and shape[0] != 1:
    raise ValueError(f"{name}: shape {shape}, want one row")
  if pair is not None and max(pair) >= shape[0]:
    raise ValueError(f"{name}: shape {shape} has no row {max(pair)}")
  rest = (slice(None),) * (len(shape) - 1)
  rows = [
    weights.read(name, (slice(each, each + 1), *rest))[0].astype(np.float32)
    for each in pair or (0,)
  ]
  return rows[0] if pair is None else rows[0] - rows[1]


class _WithHead:
  """Tensors with the head replaced by a scalar head; see `Tensors`."""

  def __init__(
    self,
    weights: Tensors,
    made: Mapping[str, np.ndarray],
    hidden: Collection[str],
  ):
    """Takes the tensors, the scalar head's, and names to leave out."""
    self._weights, self._made = weights, made
    kept = [name for name in weights.names() if name not in hidden]
    self._names = sorted({*kept, *made})

  def names(self) -> list[str]:
    return self._names

  def shape(self, name: str) -> tuple[int, ...]:
    made = self._made.get(name)
    return self._weights.shape(name) if made is None else made.shape

  def read(self, name: str, index: Index) -> np.ndarray:
    made = self._made.get(name)
    return self._weights.read(name, index) if made is None else made[index]
