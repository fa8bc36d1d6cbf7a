"""Small stand-ins for tests and colabs. Nothing here imports jax."""

from collections.abc import Sequence

from rstar_jax import config as config_lib
from rstar_jax.text import steps


class ByteTokenizer:
  """Bytes as ids, after the specials: pad 0, eos 1, then the step markers."""

  pad_id = 0
  eos_id = 1

  def __init__(self):
    self._ids = {m: 2 + i for i, m in enumerate(steps.MARKERS)}
    self._markers = {i: m for m, i in self._ids.items()}
    self._offset = 2 + len(steps.MARKERS)
    self.vocab_size = self._offset + 256

  def encode(self, text: str) -> list[int]:
    ids, start = [], 0
    for match in steps.MARKER.finditer(text):
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


def tiny_model(**overrides) -> config_lib.ModelConfig:
  """Returns a config of prime sizes where heads allow it."""
  return config_lib.ModelConfig(
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
