"""vLLM on a CPU, with its automatic prefix caching.

Runs in a Python that has a CPU build of vLLM; see `protocol`.
"""

import os
import time

from benchmarks.peers import protocol, replay

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
    from vllm.sampling_params import RequestOutputKind

    self._sampling = vllm.SamplingParams
    # A request is answered once, when all its candidates have ended.
    self._kind = RequestOutputKind.FINAL_ONLY
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

  def prepare(self, *, candidates: int, temperature: float, **_) -> None:
    self._options = {
      "n": candidates,
      "temperature": temperature,
      "ignore_eos": True,
      "detokenize": False,
    }
    if temperature == 0:
      self._options["n"] = 1  # It refuses more: they would be equal.
    self._candidates = candidates

  def expand(self, prefixes, limits, seed):
    del seed  # See `_params`.
    before = self._uncached()
    prompts = [{"prompt_token_ids": each} for each in prefixes]
    params = [self._params(limit) for limit in limits]
    answers = self._llm.generate(prompts, params, use_tqdm=False)
    return {
      "tokens": [self._tokens(each) for each in answers],
      "prefilled": self._uncached() - before,
    }

  def search(self, prompts, trees, seed, think):
    """Replays trees by the engine's own steps; see `replay`."""
    del seed
    going = replay.Replay(prompts, replay.of_json(trees), think)
    engine, before = self._llm.llm_engine, self._uncached()
    while not going.over:
      for tree, prefix, limit in going.ready():
        prompt = {"prompt_token_ids": prefix}
        engine.add_request(str(tree), prompt, self._params(limit))
      if not engine.has_unfinished_requests():
        time.sleep(going.pause())
        continue
      for answer in engine.step():
        if answer.finished:
          going.add(int(answer.request_id), self._tokens(answer))
    return {"prefilled": self._uncached() - before, "decoded": going.decoded}

  def _params(self, limit: int):
    # No seed a request: that would sample each row by itself, and slowly.
    return self._sampling(
      max_tokens=limit,
      min_tokens=limit,
      output_kind=self._kind,
      **self._options,
    )

  def _tokens(self, answer) -> list[list[int]]:
    tokens = [list(each.token_ids) for each in answer.outputs]
    return tokens * (self._candidates // len(tokens))

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
