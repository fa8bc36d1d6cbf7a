"""Records of runs, and journals of what was answered."""

import contextlib
import hashlib
import io
import json
import pathlib
import random
import shutil

from rstar_jax import outside
from rstar_jax.config import identity
from rstar_jax.config.schema import Config, RemoteConfig
from rstar_jax.inference.completions_client import readable
from rstar_jax.pipeline import shards, units
from rstar_jax.report import progress, status
from rstar_jax.storage import json_io, layout, manifests, records
from rstar_jax.storage.journal import Journal
from rstar_jax.types import Problem
from tests.fuzz import hostile
from tests.fuzz.hostile import Outcome, check_shown
from tests.fuzz.servers import ANSWERS, GOOD


class Runs:
  """What a run has written, and reads again."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._run = folder / "run"
    self._run.mkdir()
    text = json.dumps(identity.to_json(Config()))
    (self._run / "config.json").write_text(text)

  def _write(self, name: str, data: bytes) -> pathlib.Path:
    path = self._folder / name
    path.write_bytes(data)
    return path

  def journal(self, source: random.Random) -> Outcome:
    """A line of a journal of answers."""
    entry = {"key": "b", "answer": source.choice(ANSWERS)}
    line = hostile.document(source, entry).replace(b"\n", b" ")
    good = [
      json.dumps({"key": key, "answer": GOOD}).encode() for key in ("a", "c")
    ]
    path = self._write("journal", b"%b\n%b\n%b\n" % (good[0], line, good[1]))
    config = RemoteConfig(model="m")
    journal = Journal(path, check=readable(config))
    # The line may by chance have one of the other keys.
    assert journal.get("a") and journal.get("c"), len(journal)
    journal.put("b", GOOD)
    again = Journal(path, check=readable(config))
    assert again.get("b") == journal.get("b")
    return "set aside" if journal.passed_over else "used"

  def half_a_journal(self, source: random.Random) -> Outcome:
    """The last line of a journal whose process was killed."""
    entry = {"key": "b", "answer": GOOD}
    line = hostile.document(source, entry).replace(b"\n", b" ")
    good = json.dumps({"key": "a", "answer": GOOD}).encode()
    path = self._write("journal", b"%b\n%b" % (good, line))
    journal = Journal(path)
    assert list(journal._places) == ["a"]
    journal.put("c", 1)
    again = Journal(path)
    assert (again.get("a"), again.get("c")) == (GOOD, 1)
    return "set aside"

  def begun_shard(self, source: random.Random) -> Outcome:
    """A line of the journal of a shard that is not written yet."""
    folder = self._folder / "begun"
    shutil.rmtree(folder, ignore_errors=True)
    chosen = [Problem(f"p{i}", "Q") for i in range(3)]
    cut = shards.cut(chosen, 3, folder)
    begun = units._Part(cut[0], "a", ())
    for place in range(2):
      begun.put(place, {"": [{"id": chosen[place].id}]})
    (journal,) = folder.iterdir()
    first, good = journal.read_bytes().splitlines()
    line = hostile.document(source, json.loads(first)).replace(b"\n", b" ")
    journal.write_bytes(b"%b\n%b\n" % (line, good))
    searched = []

    def search(unit):
      searched.append(unit.problem)
      return {"": [{"id": unit.problem.id}]}
      yield

    with (
      contextlib.redirect_stderr(io.StringIO()),
      units.Units(cut, "a", "fuzz") as stage,
    ):
      stage.search(lambda unit: (search(unit), None), 1)
    (shard,) = folder.iterdir()
    rows = records.read_shard(shard)
    assert rows == [{"id": each.id} for each in chosen], rows
    assert searched in (chosen[2:], chosen[::2]), searched
    return "set aside" if stage.passed_over else "used"

  def metrics(self, source: random.Random) -> Outcome:
    """A line of metrics.jsonl: of the status and the report."""
    good = {"step": 1, "time": 5.0, "elapsed": 2.0, "rollout/solved": 0.5}
    line = hostile.document(source, good).replace(b"\n", b" ")
    good = json.dumps(good).encode()
    path = self._run / "metrics.jsonl"
    path.write_bytes(b"%b\n%b\n%b\n" % (good, line, good))
    check_shown(outside.shown(status.render(progress.look(self._run))))
    rows = list(records.each_row(path))
    assert len(rows) in (2, 3) and rows[0] == rows[-1]
    json.dumps(rows).encode()
    return "used" if len(rows) == 3 else "set aside"

  def manifest(self, source: random.Random) -> Outcome:
    """The manifest of a finished stage, which is made again if it is bad."""
    folder = self._folder / "stage"
    if not folder.exists():
      records.write_shard(folder / records.shard_name(0, 1), [{"a": 1}])
      manifests.write(folder, {"step": 1})
      self._whole = (folder / layout.MANIFEST).read_bytes()
    data = hostile.document(source, json.loads(self._whole), most=1)
    (folder / layout.MANIFEST).write_bytes(data)
    found = manifests.read(folder)
    if found is not None:
      whole = json.loads(self._whole)
      assert found == {k: v for k, v in whole.items() if k != "sha256"}
    progress.look(self._folder)
    return "set aside" if found is None else "used"

  def shard(self, source: random.Random) -> Outcome:
    """A shard of records, which is made again if it is bad."""
    path, rows = (
      self._folder / "shard",
      [{"a": "\ud800"}, {"b": [1, None, 0.5]}],
    )
    records.write_shard(path, rows)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[4:8], "little")
    header, packed = whole[8:start], bytearray(whole[start:])
    match source.choice(("header", "rows", "earlier version")):
      case "header":
        header = hostile.document(source, json.loads(header), most=1)
        size = len(header).to_bytes(4, "little")
        data = b"".join([whole[:4], size, header, packed])
      case "rows":
        packed[source.randrange(len(packed))] ^= source.randrange(256)
        data = whole[:start] + packed[: source.randrange(2 * len(packed))]
      case _:
        lines = [json_io.line(row) for row in rows]
        sha256 = hashlib.sha256(b"".join(lines)).hexdigest()
        lines.append(json_io.line({"footer": {"rows": 2, "sha256": sha256}}))
        at = source.randrange(3)
        line = hostile.document(source, json.loads(lines[at]), most=1)
        data = b"".join([*lines[:at], line, b"\n", *lines[at + 1 :]])
    path.write_bytes(data)
    if not records.is_complete(path):
      return "set aside"
    try:
      found = records.read_shard(path)
    except records.CorruptShard as error:
      assert "\n" not in str(error), error
      return "refused"
    assert found == rows
    return "used"

  def config(self, source: random.Random) -> Outcome:
    """The config.json of a run."""
    fields = identity.to_json(Config())
    data = hostile.document(source, fields)
    run = self._folder / "other"
    run.mkdir(exist_ok=True)
    (run / "config.json").write_bytes(data)
    try:
      status.render(progress.look(run))
      identity.from_json(data)
    except ValueError as error:
      assert "\n" not in str(error), error
      return "refused"
    return "used"
