"""vLLM on a CPU, with its automatic prefix caching.

Runs in a Python that has a CPU build of vLLM; see `protocol`.
"""

import os

from benchmarks.peers import protocol

# Before the import, which reads them. One process: less to wait for.
_DEFAULTS = {
  "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
  "VLLM_NO_USAGE_STATS": "1",
  "VLLM_LOGGING_LEVEL": "WARNING",
  "HF_HUB_OFFLINE": "1",
}
_BLOCK = 32


class VllmEngine:
  """Expansion by vLLM."""

  def __init__(
    self, folder: str, dtype: str, threads: int, cache_gib: int = 1, **_
  ):
    for name, value in _DEFAULTS.items():
      os.environ.setdefault(name, value)
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(cache_gib)
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{threads - 1}"
    import vllm

    self._sampling = vllm.SamplingParams
    self._llm = vllm.LLM(
      model=folder,
      dtype=dtype,
      skip_tokenizer_init=True,
      enable_prefix_caching=True,
      # Less than its default of 128: it runs the last block of a prefix anew
      # for each candidate, since what it finds are whole blocks.
      block_size=_BLOCK,
      max_model_len=2048,
      max_num_seqs=256,
      disable_log_stats=False,
    )

  def prepare(
    self, *, candidates: int, temperature: float, reuse: bool = True, **_
  ) -> None:
    self._options = {
      "n": candidates,
      "temperature": temperature,
      "ignore_eos": True,
      "detokenize": False,
    }
    if temperature == 0:
      self._options["n"] = 1  # It refuses more: they would be equal.
    self._candidates, self._reuse = candidates, reuse

  def expand(self, prefixes, limits, seed, **_):
    if not self._reuse:
      self._llm.reset_prefix_cache()
    # No seed a request: that would sample each row by itself, and slowly.
    params = [
      self._sampling(max_tokens=limit, min_tokens=limit, **self._options)
      for limit in limits
    ]
    before = self._uncached()
    prompts = [{"prompt_token_ids": each} for each in prefixes]
    answers = self._llm.generate(prompts, params, use_tqdm=False)
    tokens = [[list(o.token_ids) for o in each.outputs] for each in answers]
    if self._options["n"] == 1:
      tokens = [rows * self._candidates for rows in tokens]
    return {"tokens": tokens, "prefilled": self._uncached() - before}

  def _uncached(self) -> int:
    """Returns how many tokens of prompts were not found in the cache."""
    counts = {
      metric.name: metric.value
      for metric in self._llm.get_metrics()
      if metric.name.startswith("vllm:prefix_cache_")
    }
    return int(
      counts.get("vllm:prefix_cache_queries", 0)
      - counts.get("vllm:prefix_cache_hits", 0)
    )


if __name__ == "__main__":
  protocol.serve(VllmEngine)
