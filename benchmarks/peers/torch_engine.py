"""`transformers` on torch: prefixes run once, their cache copied to all rows.

Runs in a Python that has torch and transformers; see `protocol`. The loop is
`generate` of the library, which continues a cache.
"""

import time

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from benchmarks.peers import protocol


class TorchEngine:
  """Expansion by `transformers`; rows of one length and one limit only."""

  def __init__(self, folder: str, dtype: str, threads: int, **_):
    torch.set_num_threads(threads)
    self._model = AutoModelForCausalLM.from_pretrained(
      folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()

  def prepare(self, *, candidates: int, temperature: float, **_) -> None:
    self._candidates, self._greedy = candidates, temperature == 0

  @torch.inference_mode()
  def expand(self, prefixes, limits, seed):
    torch.manual_seed(seed)
    ids = torch.tensor(prefixes)
    new = limits[0]
    if limits != [new] * len(prefixes):
      raise ValueError("this loop wants one limit for all leaves")
    tokens = self._generate(ids, new)
    tokens = tokens.reshape(len(prefixes), self._candidates, new)
    return {"tokens": tokens.tolist(), "prefilled": ids.numel()}

  def _generate(self, ids: torch.Tensor, new: int) -> torch.Tensor:
    cache = DynamicCache(config=self._model.config)
    # All but the last token, which `generate` runs itself.
    self._model(ids[:, :-1], past_key_values=cache, logits_to_keep=1)
    cache.batch_repeat_interleave(self._candidates)
    rows = ids.repeat_interleave(self._candidates, 0)
    sampling = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
    out = self._model.generate(
      rows,
      attention_mask=torch.ones_like(rows),
      past_key_values=cache,
      max_new_tokens=new,
      min_new_tokens=new,
      pad_token_id=0,
      **(dict(do_sample=False) if self._greedy else sampling),
    )
    return out[:, ids.shape[1] :]

  def roofline(self, size: int = 2048) -> dict[str, float]:
    """Returns FLOP/s of large products by dtype, and bytes/s of a copy."""
    found = {}
    for dtype in ("float32", "bfloat16"):
      a = torch.randn(size, size).to(getattr(torch, dtype))
      b = torch.randn(size, size).to(getattr(torch, dtype))
      found[dtype] = 2 * size**3 / _least(lambda a=a, b=b: a @ b)
    source = torch.zeros(1 << 26)
    target = torch.empty_like(source)
    found["copy"] = 8 * source.numel() / _least(lambda: target.copy_(source))
    return found


def _least(run, repeats: int = 7) -> float:
  run()
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - start)
  return min(seconds)


if __name__ == "__main__":
  protocol.serve(TorchEngine)
