"""Updates of policy and PPM by torch and `transformers`; see `protocol`."""

import contextlib

import torch
from transformers import AutoModelForCausalLM

from benchmarks.peers import protocol


class TorchTraining:
  """SFT and PPM updates with fused AdamW, clipped as ours are."""

  def __init__(self, folder: str, dtype: str, threads: int, **_):
    torch.set_num_threads(threads)
    self._folder, self._dtype = folder, dtype

  def prepare(self, kind: str, score: list[float], rate: float) -> None:
    del kind
    # Float32 masters; bfloat16 by autocast, as is usual with torch.
    self._model = AutoModelForCausalLM.from_pretrained(
      self._folder, dtype=torch.float32, attn_implementation="sdpa"
    ).train()
    self._score = torch.nn.Parameter(torch.tensor(score))
    parameters = [*self._model.parameters(), self._score]
    self._parameters = parameters
    self._optimizer = torch.optim.AdamW(
      parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )

  def sft(self, tokens, positions, parents, ends, weights) -> float:
    """Makes one update on packed rows; returns the loss before it."""
    tokens, positions, parents, ends, weights = map(
      torch.tensor, (tokens, positions, parents, ends, weights)
    )
    size = tokens.shape[1]
    seen = torch.arange(size)[:, None] < ends[:, None, None, :]
    seen &= torch.ones(size, size, dtype=torch.bool).tril()
    with self._precision() as dtype:
      logits = self._model(
        tokens,
        attention_mask=_additive(seen, dtype),
        position_ids=positions,
        use_cache=False,
      ).logits
      logits = logits[torch.arange(len(tokens))[:, None], parents]
      losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), tokens.flatten(), reduction="none"
      )
      loss = (losses * weights.flatten()).sum() / weights.sum()
    return self._update(loss)

  def ppm(self, pairs: list) -> float:
    """Makes one update on pairs of ids, the preferred side first."""
    rows = [ids for pair in pairs for ids in pair]
    if len(set(map(len, rows))) > 1:
      raise ValueError("this update wants sides of one length")
    with self._precision():
      hidden = self._model.model(
        torch.tensor(rows), use_cache=False
      ).last_hidden_state[:, -1]
      values = torch.tanh(hidden.float() @ self._score).reshape(-1, 2)
      margin = values[:, 0] - values[:, 1]
      loss = -torch.nn.functional.logsigmoid(margin).mean()
    return self._update(loss)

  @contextlib.contextmanager
  def _precision(self):
    if self._dtype == "float32":
      yield torch.float32
    else:
      with torch.autocast("cpu", torch.bfloat16):
        yield torch.bfloat16

  def _update(self, loss: torch.Tensor) -> float:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(
      [each for each in self._parameters if each.grad is not None], 1.0
    )
    self._optimizer.step()
    self._optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
  """Returns a mask of 0 where a token is seen, and the least number else."""
  mask = torch.zeros(seen.shape, dtype=dtype)
  return mask.masked_fill(~seen, torch.finfo(dtype).min)


if __name__ == "__main__":
  protocol.serve(TorchTraining)
