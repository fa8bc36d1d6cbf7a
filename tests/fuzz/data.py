"""Data sets, and weights of models, in files."""

import contextlib
import gzip
import io
import json
import pathlib
import pickle
import random
import zipfile

from rstar_jax.config.schema import DataConfig
from rstar_jax.data import problems, released
from rstar_jax.data.rows import ProblemError, table_row
from rstar_jax.grading import labelled
from rstar_jax.hf import fields, pickles
from rstar_jax.types import Problem
from tests.fuzz import hostile
from tests.fuzz.hostile import Outcome, check_text

_ROW = b'{"question": "Q", "answer": 1}'
_LAST = b'{"question": "R", "answer": 2}'
_ROWS = (
  {"id": "x", "question": "S", "answer": "3", "level": 2, "also": ["4"]},
  {"problem": "S", "solution": "so \\boxed{3}", "level": "Level 3"},
  {
    "messages": [
      {"role": "user", "content": "S"},
      {"role": "assistant", "content": "The answer is: 3"},
    ]
  },
)
_ROWS += (
  {"conversations": [{"from": "human", "value": "S"}], "answer": "3"},
  {
    "data_source": "s",
    "prompt": [{"role": "user", "content": "S"}],
    "reward_model": {"ground_truth": '["3"]', "style": "rule"},
    "extra_info": {"index": "x", "question": "S"},
  },
)
_SFT = {
  "query": "S",
  "response": (
    "<code>\nx = 3\n<end_of_step>\nprint(x)\n<end_of_code>\n<output>3"
    "<end_of_output>\n<answer>\\boxed{3}<end_of_answer>"
  ),
}
_PAIR = {
  "prompt": "<|user|>:\nS\n<|assistant|>: Let's",
  "pos": "<code>\nx = 3\n<end_of_step>",
  "neg": "<code>\nx = 4\n<end_of_step>",
  "pos_count": 2,
  "neg_count": 3,
}


# A dict of one tensor, as torch writes it.
_PICKLE = (
  b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n((U\x07storage"
  b"ctorch\nFloatStorage\nU\x010U\x03cpuK\x06tQK\x00K\x02K\x03\x86K\x03K\x01"
  b"\x86\x89}tRs."
)


class Data:
  """Problems, solutions and pairs."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder

  def _write(self, name: str, data: bytes) -> pathlib.Path:
    path = self._folder / name
    path.write_bytes(data)
    return path

  def _problems(self, path: pathlib.Path) -> list[Problem]:
    config = DataConfig(source=str(path), on_error="skip")
    found = problems.load_problems(config)
    for each in found:
      for text in (each.id, each.question, each.answer, *each.alternatives):
        check_text(text)
    assert found[0].question == "Q", found
    return found

  def json_lines(self, source: random.Random) -> Outcome:
    """A line of problems."""
    line = hostile.document(source, source.choice(_ROWS)).replace(b"\n", b" ")
    path = self._write("set.jsonl", b"%b\n%b\n%b\n" % (_ROW, line, _LAST))
    found = self._problems(path)
    assert found[-1].question == "R", found
    return "used" if len(found) == 3 else "set aside"

  def json_list(self, source: random.Random) -> Outcome:
    """An item of a list of problems."""
    item = hostile.document(source, source.choice(_ROWS))
    path = self._write("set.json", b"[%b,\n%b,\n%b]" % (_ROW, item, _LAST))
    try:
      found = self._problems(path)
    except ProblemError as error:
      assert "nothing after it can be read" in str(error), error
      return "refused"
    assert found[-1].question == "R", found
    return "used" if len(found) == 3 else "set aside"

  def csv(self, source: random.Random) -> Outcome:
    """A line of a table."""
    cells = ",".join(hostile.text(source) for _ in range(2))
    line = cells.encode("utf-8", "surrogatepass")
    data = b"question,answer\nQ,1\n%b\nR,2\n" % line
    try:
      found = self._problems(self._write("set.csv", data))
    except ProblemError as error:
      assert "nothing after it can be read" in str(error), error
      return "refused"
    return "used" if len(found) >= 3 else "set aside"

  def compressed(self, source: random.Random) -> Outcome:
    """A compressed file that is damaged."""
    rows = hostile.document(source, _ROWS[0]).replace(b"\n", b" ")
    data = bytearray(gzip.compress(b"%b\n%b\n%b\n" % (_ROW, rows, _LAST)))
    at = source.randrange(len(data))
    match source.choice(("changed", "cut", "longer")):
      case "changed":
        data[at] ^= source.randrange(256)
      case "cut":
        data = data[:at]
      case _:
        data += source.randbytes(9)
    try:
      self._problems(self._write("set.jsonl.gz", bytes(data)))
    except ProblemError as error:
      assert "\n" not in str(error), error
      return "refused"
    return "used"

  def table(self, source: random.Random) -> Outcome:
    """A row of a function of the user's, or of a data set's table."""
    row = {"question": hostile.text(source), "answer": hostile.atom(source)}
    if source.random() < 0.5:
      row |= {"also": [hostile.text(source)], "level": hostile.atom(source)}
    value = table_row("table[0]", 0, row)
    with contextlib.suppress(problems.shapes.Ungraded, ProblemError):
      found = problems.shapes.problem_of(value, "table", DataConfig())
      for text in (found.question, found.answer, *found.alternatives):
        check_text(text)
      return "used"
    return "set aside"

  def solutions(self, source: random.Random) -> Outcome:
    """A line of the authors' released solutions."""
    return self._released(source, _SFT, released.read_sft)

  def pairs(self, source: random.Random) -> Outcome:
    """A line of the authors' released pairs."""
    return self._released(source, _PAIR, released.read_pairs)

  def _released(self, source: random.Random, row: dict, read) -> Outcome:
    line = hostile.document(source, row).replace(b"\n", b" ")
    good = json.dumps(row).encode()
    path = self._write("released.jsonl", b"%b\n%b\n%b\n" % (good, line, good))
    skipped = released.Skipped()
    found = list(read(str(path), skipped))
    assert len(found) + skipped.total() in (2, 3)
    assert found[0] == found[-1]
    for each in found:
      check_text(repr(each))
    return "used" if len(found) == 3 else "set aside"

  def labelled(self, source: random.Random) -> Outcome:
    """A line of labelled pairs of answers."""
    pair = {"gold": "1", "predicted": "2", "equal": False, "category": "x"}
    path = self._write("pairs.jsonl", hostile.document(source, pair))
    try:
      for each in labelled.read(path):
        check_text(each.gold + each.predicted)
    except ValueError:
      return "refused"
    return "used"


class Models:
  """Files of a model."""

  def __init__(self, folder: pathlib.Path):
    self._file = folder / pickles.FILES.single

  def json(self, source: random.Random) -> Outcome:
    """A config.json, or an index of weights."""
    good = {"model_type": "llama", "weight_map": {"a": "b"}, "n": 3}
    self._file.write_bytes(hostile.document(source, good))
    try:
      assert isinstance(fields.read_json(self._file), dict)
    except ValueError as error:
      assert "\n" not in str(error), error
      return "refused"
    return "used"

  def pickle(self, source: random.Random) -> Outcome:
    """The description of pickled tensors, changed or of anything else."""
    whole = bytearray(_PICKLE)
    match source.choice(("changed", "cut", "other")):
      case "changed":
        for _ in range(source.randrange(3)):
          whole[source.randrange(len(whole))] = source.randrange(256)
      case "cut":
        whole = whole[: source.randrange(len(whole))]
      case _:
        whole = pickle.dumps({hostile.text(source): hostile.atom(source)})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
      archive.writestr("model/data.pkl", bytes(whole))
      archive.writestr("model/data/0", bytes(24))
    self._file.write_bytes(packed.getvalue())
    try:
      opened = pickles.PickledFolder(self._file.parent)
      for name in opened.names():
        shape = opened.shape(name)
        if sum(shape) < 99:
          opened.read(name, tuple(slice(0, size) for size in shape))
    except ValueError as error:
      assert "\n" not in str(error), error
      return "refused"
    return "used"
