"""Shows the report of a run, or of single trees, in a notebook.

A notebook displays the returned `Frame` as the last value of a cell. The frame
holds the page of `page.py`, unchanged, as a document without the notebook's
origin, so that it has no access to the notebook.
"""

import base64
import dataclasses
import html
import pathlib
import tempfile
import urllib.parse
from collections.abc import Sequence

from etils import epath

from rstar_jax.config.schema import ExtractConfig
from rstar_jax.data import pairs as pairs_lib
from rstar_jax.data import trajectories as trajectories_lib
from rstar_jax.report import forest, inputs, page
from rstar_jax.search.tree import Tree
from rstar_jax.storage import layout, records

# Smaller than the default, since a notebook stores its outputs.
_BUDGET = forest.Budget(tree_bytes=2_000_000, rows=2_000)


@dataclasses.dataclass(frozen=True)
class Frame:
  """A page in a notebook.

  Attributes:
    page: a whole HTML document.
    address: URL fragment at which it opens, e.g. "#view=problems"; "" is the
      first page.
    height: in pixels; the width is the notebook's.
  """

  page: str = dataclasses.field(repr=False)
  address: str = ""
  height: int = 760

  def _repr_html_(self) -> str:
    packed = base64.b64encode(self.page.encode()).decode()
    source = f"data:text/html;charset=utf-8;base64,{packed}{self.address}"
    return (
      f'<iframe src="{html.escape(source)}" sandbox="allow-scripts" '
      f'title="rStar-Math report" width="100%" height="{self.height}" '
      'style="border: 1px solid #8888"></iframe>'
    )


def show_run(
  folder: epath.PathLike, *, problem: str = "", round_: int = 0
) -> Frame:
  """Shows the report of a run, from its records alone.

  Args:
    folder: workdir of the run, finished or not.
    problem: id of the training problem whose tree is shown; "" shows the
      overview.
    round_: round of that tree.

  Raises:
    ValueError, OSError: the folder or a record in it cannot be read.
  """
  text = page.render(inputs.read(folder, _BUDGET))
  return Frame(text, _tree(problem, round_) if problem else "")


def show_trees(found: Sequence[Tree]) -> Frame:
  """Shows search trees, and opens at the first one.

  Solutions and pairs that the default `ExtractConfig` selects for training are
  marked.

  Args:
    found: searched trees of problems with gold answers.

  Raises:
    ValueError: there are no trees.
  """
  if not found:
    raise ValueError("there are no trees to show: look at the folder's name")
  config = ExtractConfig()
  solutions, _ = trajectories_lib.sft_rows(found, config)
  pairs, _ = pairs_lib.pairs(found, config)
  with tempfile.TemporaryDirectory() as temporary:
    # A folder as of a run that has searched and extracted only.
    folder = pathlib.Path(temporary) / "search"
    for name, rows in (
      ("trees", [tree.to_record() for tree in found]),
      ("sft", solutions),
      ("pairs", pairs),
    ):
      shard = layout.stage_folder(folder, 1, name) / records.shard_name(0, 1)
      records.write_shard(shard, rows)
    text = page.render(inputs.read(folder, _BUDGET))
  return Frame(text, _tree(found[0].problem.id, 1))


def _tree(problem: str, round_: int) -> str:
  """Returns the URL fragment of a tree; see `Report.route` in base.js."""
  fields = {
    "view": "tree",
    "set": "training",
    "round": round_,
    "problem": problem,
  }
  return f"#{urllib.parse.urlencode(fields)}"
