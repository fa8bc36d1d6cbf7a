"""Weights that torch pickles, of every kind that is read.

python -m tests.parity.pickled        # writes tests/golden/pickled anew
"""

import pathlib

import torch

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "pickled"


def tensors() -> dict[str, torch.Tensor]:
  """Returns small tensors: dtypes, views, a shared storage, a buffer."""
  table = torch.arange(35, dtype=torch.float32).reshape(7, 5) / 4 - 3
  return {
    "float32": table,
    "the same": table,
    "rows": table[2:6],
    "turned": table.t(),
    "columns": table[:, 1:4],
    "bfloat16": table.to(torch.bfloat16),
    "float16": table.to(torch.float16),
    "float64": table.to(torch.float64),
    "parameter": torch.nn.Parameter(table + 1),
    "one": torch.tensor(2.5),
    "none": torch.zeros(0, 5),
    "int8": torch.arange(6, dtype=torch.int8),
    "bool": torch.ones(3, dtype=torch.bool),
  }


def state_dict() -> dict[str, torch.Tensor]:
  """Returns a module's own dict, which carries more than its tensors."""
  return torch.nn.Linear(3, 2).state_dict()


def main() -> None:
  GOLDEN.mkdir(exist_ok=True)
  torch.save(tensors(), GOLDEN / "pytorch_model.bin")


if __name__ == "__main__":
  main()
