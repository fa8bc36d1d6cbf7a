"""What `make demo` found, as README.md shows it.

  python -m tests.docs.demo runs/tiny    # takes over what a finished run found

The numbers are kept in docs/results/demo.json; a test holds README.md to what
the program prints of them.
"""

import json
import pathlib
import re
import sys

from rstar_jax.evaluation import results_tables
from tests.docs import reading

KEPT = reading.ROOT / "docs" / "results" / "demo.json"
README = reading.ROOT / "README.md"
_BEGIN, _END = "<!-- make demo prints: -->\n", "<!-- until here -->\n"
_SHOWN = re.compile(f"(?<={_BEGIN}).*(?={_END})", re.DOTALL)
# Of the paragraphs and tables that are printed: not the heading, which names
# the split, and not the two on tokens.
_PARTS = slice(1, 3), slice(5, None)


def rendered(results: dict) -> str:
  """Returns what README.md shows of a run's results."""
  parts = results_tables.markdown(results).rstrip().split("\n\n")
  kept = [part for each in _PARTS for part in parts[each]]
  return "\n\n".join([*kept, ""])


def shown(text: str) -> str:
  """Returns what stands between the marks of README.md."""
  return _SHOWN.search(text)[0]


def main(folder: str) -> None:
  results = json.loads((pathlib.Path(folder) / "results.json").read_text())
  kept = {name: results[name] for name in ("rows", "solved", "ppm")}
  KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
  text = README.read_text()
  README.write_text(_SHOWN.sub(lambda _: rendered(kept), text))


if __name__ == "__main__":
  main(sys.argv[1])
