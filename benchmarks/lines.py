"""What a benchmark prints: lines of JSON."""

import json
from typing import Any


def show(kind: str, **row: Any) -> None:
  """Prints one line of JSON, floats to four digits."""

  def short(value: Any) -> Any:
    if isinstance(value, dict):
      return {key: short(each) for key, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value

  print(json.dumps({"kind": kind, **short(row)}), flush=True)
