"""A search over 1 to 1,000 hosts, simulated; prints tables.

  python -m benchmarks.fleet [--part=host] [--chip=v6e] [--round=4]

Each host has four chips that hold one model, and searches shards alone. What
trees ask for is drawn from `fleet_record.json` (see `fleet_record.py`), scaled
to a model of 7 billion parameters; device seconds are a roofline. The parts:

  call: one device call, and what steps of unequal length cost it
  host: idle share of the device by groups and sandbox workers
  tail: what a shard loses as its trees finish, by its size and the slots
  what_if: one change at a time, of the model's steps, the sandbox or the host
  attempts: further attempts at unsolved problems, in a shard or in others
  stage: many hosts, by shard size, assignment and deaths

"Problems an hour" are of one host. Nothing here is measured on a TPU.
"""

import dataclasses
import json
import pathlib
import random
import statistics

from absl import app, flags

from benchmarks import fleet_stage
from benchmarks.fleet_host import Device, Host, Spent
from benchmarks.fleet_stage import Loss
from benchmarks.fleet_work import Round, Scale, Source

_PARTS = ["call", "host", "tail", "what_if", "attempts", "stage"]
_PART = flags.DEFINE_list("part", _PARTS, "Which.")
_CHIP = flags.DEFINE_enum("chip", "v5e", ["v4", "v5e", "v5p", "v6e"], "Of TPU.")
_ROUND = flags.DEFINE_enum("round", "2", ["2", "3", "4"], "Of the paper.")
_EFFICIENCY = flags.DEFINE_float("efficiency", 0.5, "Share of the roofline.")
_CALL_MS = flags.DEFINE_float("call_ms", 5.0, "Beyond it, of each call.")
_STEP_SCALE = flags.DEFINE_float("step_scale", 0.0, "0: as long as released.")
# 0.32 makes the lengths vary as much as those of the released solutions.
_SPREAD = flags.DEFINE_float("spread", 0.32, "Of lengths; as fleet_work.Scale.")
_LONG = flags.DEFINE_float("long", 0.0, "Share of steps cut at the limit.")
_DISTINCT = flags.DEFINE_float("distinct", 0.9, "Candidates that are programs.")
_FULL = flags.DEFINE_bool("full", True, "No tree runs out of steps early.")
_SANDBOX_SCALE = flags.DEFINE_float("sandbox_scale", 1.0, "Of its latencies.")
_SLOW = flags.DEFINE_float("slow", 0.0, "Share of programs that time out.")
_WALL = flags.DEFINE_float("wall", 5.0, "Seconds until they do.")
_KIND = flags.DEFINE_string("kind", "released", "Of programs; see the record.")
_WORKERS = flags.DEFINE_integer("workers", 32, "In `tail` and `stage`.")
_SLOTS = flags.DEFINE_integer("slots", 32, "In `stage`.")
_GRADERS = flags.DEFINE_integer("graders", 4, "Processes of a host.")
_GROUPS = flags.DEFINE_integer("groups", 2, "In `tail` and `stage`.")
_DRAWN = flags.DEFINE_integer("drawn", 1600, "Problems for each figure.")
_HOURS = flags.DEFINE_float("hours", 24.0, "Mean between a host's failures.")
_REPAIR = flags.DEFINE_float("repair", 10.0, "Minutes until it is back.")

_RECORD = pathlib.Path(__file__).parent / "fleet_record.json"
# Published peaks of a chip: FLOP/s in bfloat16, bytes/s of memory.
_CHIPS = {
  "v4": (275e12, 1228e9),
  "v5e": (197e12, 819e9),
  "v5p": (459e12, 2765e9),
  "v6e": (918e12, 1640e9),
}
_CHIPS_OF_A_HOST = 4
# How often a stage in which hosts die is run; its figures are the medians.
_SEEDS = 5
# Qwen2.5-Math-7B, its embedding left out: parameters that a token multiplies,
# and bytes of its keys and values (28 layers, 4 heads of 128, bfloat16).
_PARAMETERS = 7.07e9
_TOKEN_BYTES = 2 * 28 * 4 * 128 * 2
# Rollouts and candidates are the paper's. Shares of problems that are still
# unsolved are those after the round before, and after this one (Table 2).
_ROUNDS = {
  "2": Round(16, 8, extra=((0.334, 16),)),
  "3": Round(16, 8, extra=((0.334, 16),), ppm=True),
  "4": Round(16, 16, trees=2, extra=((0.221, 64), (0.0975, 128)), ppm=True),
}


def device(chip: str) -> Device:
  """Returns the roofline of a host."""
  flops, bandwidth = (_CHIPS_OF_A_HOST * each for each in _CHIPS[chip])
  return Device(
    weights=2 * _PARAMETERS / bandwidth,
    row=2 * _PARAMETERS / flops,
    token=_TOKEN_BYTES / bandwidth,
    efficiency=_EFFICIENCY.value,
    call=1e-3 * _CALL_MS.value,
  )


def host_of(record: dict, **options) -> Host:
  """Returns a host of the flags, with options of `Host` and `Device`."""
  compact = options.pop("compact", True)
  return Host(
    device=dataclasses.replace(device(_CHIP.value), compact=compact),
    controller=1e-6
    * (record["controller_us"] + _DISTINCT.value * record["program_us"]),
    **({"graders": _GRADERS.value} | options),
  )


def source_of(record: dict, **changes) -> Source:
  """Returns trees as the flags say, with changes of `Scale` or the `kind`."""
  mine = [n for t in record["trees"] for tick in t for n in tick[5:]]
  theirs = [n for each in record["released_tokens"] for n in each]
  ratio = statistics.mean(theirs) / statistics.mean(mine)
  options = {
    "step": _STEP_SCALE.value or ratio,
    "spread": _SPREAD.value,
    "long": _LONG.value,
    "distinct": _DISTINCT.value,
    "full": _FULL.value,
    "sandbox": _SANDBOX_SCALE.value,
    "slow": _SLOW.value,
    "wall": _WALL.value,
  }
  kind = changes.pop("kind", _KIND.value)
  return Source(
    record, _ROUNDS[_ROUND.value], Scale(**(options | changes)), kind
  )


def table(title: str, head: list, rows: list[list]) -> None:
  """Prints a Markdown table."""
  print(f"\n{title}\n")
  rules = ["---" if isinstance(cell, str) else "---:" for cell in rows[0][:1]]
  rules += ["---:"] * (len(head) - 1)
  for row in [head, rules, *rows]:
    cells = [f"{x:.4g}" if isinstance(x, float) else str(x) for x in row]
    print("| " + " | ".join(cells) + " |", flush=True)


def percent(share: float) -> str:
  return f"{100 * share:.1f}%"


def drawn(source: Source, size: int, host: Host) -> list[Spent]:
  """Returns so many shards of a size as the flag has problems, at least 2."""
  count = max(2, _DRAWN.value // size)
  return [source.shard(size, host) for _ in range(count)]


def per_hour(shards: list[Spent], size: int) -> int:
  """Returns problems that a host searches in an hour."""
  return round(3600 * size * len(shards) / sum(s.seconds for s in shards))


def show_call(record: dict) -> None:
  """Tokens a second of one device call, and what unequal lengths cost it."""
  rng = random.Random(0)
  ticks = [tick for _ in range(60) for tick in source_of(record).tree()]
  rows = []
  for chip in _CHIPS:
    for slots in (16, 32, 64, 128):
      batches = [rng.sample(ticks, slots) for _ in range(10)]
      tokens = sum(sum(t.lengths) for batch in batches for t in batch)
      count = sum(len(t.lengths) for batch in batches for t in batch)
      mean = (round(tokens / count),) * len(ticks[0].lengths)
      row: list = [f"{chip}, slots={slots}"]
      for compact in (False, True):
        model = dataclasses.replace(device(chip), compact=compact)
        seconds = sum(model.expand(batch) for batch in batches)
        row.append(round(tokens / seconds))
      even = [
        [dataclasses.replace(tick, lengths=mean) for tick in batch]
        for batch in batches
      ]
      row.append(round(tokens / sum(model.expand(batch) for batch in even)))
      rows.append(row)
  table(
    "Tokens a second of the device, all slots full",
    ["chip", "to the longest", "halved", "all as long as the mean"],
    rows,
  )


def show_host(record: dict) -> None:
  """Idle share of the device, with as many trees in flight for each row."""
  size, flight = 400, 128
  for slow in (0.0, 0.01):
    rows = []
    for workers in (2, 8, 16, 32, 64):
      row: list = [workers]
      for groups in (1, 2, 3, 4):
        host = host_of(
          record, slots=flight // groups, groups=groups, workers=workers
        )
        spent = source_of(record, slow=slow).shard(size, host)
        row.append(f"{percent(spent.idle)} ({per_hour([spent], size)})")
      rows.append(row)
    table(
      f"Idle share of the device (problems an hour); {flight} trees in flight, "
      f"a shard of {size}, {percent(slow)} of programs time out",
      ["workers", *(f"groups={n}" for n in (1, 2, 3, 4))],
      rows,
    )


def show_tail(record: dict) -> None:
  """What a shard loses at its end."""
  sizes, slots = (25, 50, 100, 200, 400, 800), (8, 16, 32, 64)
  groups = _GROUPS.value
  rates, full = [], []
  for size in sizes:
    rate: list = [size]
    leaves: list = [size]
    for each in slots:
      host = host_of(record, slots=each, groups=groups, workers=_WORKERS.value)
      shards = drawn(source_of(record), size, host)
      spent = sum(shards, Spent())
      rate.append(f"{per_hour(shards, size)} ({percent(spent.idle)})")
      share = spent.leaves / spent.expanding / each
      leaves.append(percent(share))
    rates.append(rate)
    full.append(leaves)
  head = ["shard_size", *(f"slots={n}" for n in slots)]
  note = f"groups={groups}, workers={_WORKERS.value}"
  table(f"Problems an hour (device idle); {note}", head, rates)
  table("Slots that are full while the device expands", head, full)


def show_what_if(record: dict) -> None:
  """One change at a time, of the defaults that the other parts have."""
  size = 400
  changes: list[tuple[str, dict, dict]] = [
    ("nothing", {}, {}),
    ("sandbox.workers=2", {}, {"workers": 2}),
    ("grader.workers=1", {}, {"graders": 1}),
    ("slots twice", {}, {"slots": 2 * _SLOTS.value}),
    ("groups=3", {}, {"groups": 3}),
    ("slots four times", {}, {"slots": 4 * _SLOTS.value}),
    ("rows are not compacted", {}, {"compact": False}),
    ("all steps of a tree as long", {"equal": True}, {}),
    ("sympy in every step", {"kind": "sympy"}, {}),
    ("a sandbox three times as fast", {"sandbox": 1 / 3}, {}),
    ("1% of programs time out", {"slow": 0.01}, {}),
    ("1% time out, groups=3", {"slow": 0.01}, {"groups": 3}),
    ("1% time out, wall_seconds=2", {"slow": 0.01, "wall": 2.0}, {}),
    ("1% of steps run to 512 tokens", {"long": 0.01}, {}),
    ("1% of steps run to 256 tokens", {"long": 0.01, "limit": 256}, {}),
    ("distinct programs as recorded", {"distinct": 0.0}, {}),
    ("trees run out as recorded", {"full": False}, {}),
  ]
  rows = []
  for name, scale, options in changes:
    default = {
      "slots": _SLOTS.value,
      "groups": _GROUPS.value,
      "workers": _WORKERS.value,
    }
    spent = source_of(record, **scale).shard(
      size, host_of(record, **(default | options))
    )
    share = spent.leaves / spent.expanding / (default | options)["slots"]
    rows.append(
      [
        name,
        per_hour([spent], size),
        round(spent.tokens / spent.seconds),
        percent(spent.idle),
        percent(share),
      ]
    )
  table(
    f"One change at a time; a shard of {size}, slots={_SLOTS.value}, "
    f"groups={_GROUPS.value}, workers={_WORKERS.value}",
    ["changed", "problems an hour", "tokens/s", "device idle", "slots full"],
    rows,
  )


def show_attempts(record: dict) -> None:
  """Further attempts in the shard, against shards of unsolved problems."""
  host = host_of(
    record,
    slots=_SLOTS.value,
    groups=_GROUPS.value,
    workers=_WORKERS.value,
  )
  share = _ROUNDS[_ROUND.value].extra[0][0]
  rows = []
  for size in (50, 400):
    source, sums = source_of(record), [0.0, 0.0, 0.0]
    count = max(1, _DRAWN.value // size)
    for _ in range(count):
      sums[0] += source.shard(size, host).seconds
      sums[1] += source.shard(size, host, extra=False).seconds
      sums[2] += share * source.attempts(size, host).seconds
    within, first, apart = (each / count / size for each in sums)
    rows.append(
      [
        size,
        round(3600 / within),
        round(3600 / (first + apart)),
        percent(1 - first / within),
      ]
    )
  table(
    f"Problems an hour, round {_ROUND.value}",
    ["shard_size", "in the shard", "in shards of their own"]
    + ["time of the attempts, in the shard"],
    rows,
  )


def show_stage(record: dict) -> None:
  """Many hosts, with shards drawn from those of one."""
  host = host_of(
    record,
    slots=_SLOTS.value,
    groups=_GROUPS.value,
    workers=_WORKERS.value,
  )
  library = {
    size: [each.seconds for each in drawn(source_of(record), size, host)]
    for size in (50, 100, 200, 400, 800)
  }
  rows = [
    [
      size,
      round(statistics.mean(seconds) / 60, 1),
      percent(statistics.pstdev(seconds) / statistics.mean(seconds)),
      f"{3600 * size / statistics.mean(seconds):.0f}",
    ]
    for size, seconds in library.items()
  ]
  table(
    "Shards",
    ["shard_size", "minutes", "deviation", "problems an hour"],
    rows,
  )
  # The best that any shard size reaches, on hosts that are never idle.
  best = min(statistics.mean(s) / size for size, s in library.items())
  deaths = Loss(3600 * _HOURS.value, 60 * _REPAIR.value, 60 * _REPAIR.value)
  for problems in (747_000, 10_000):
    for hosts in (1, 10, 100, 1000):
      rows = []
      for size, seconds in library.items():
        rng = random.Random(size)
        shards = rng.choices(seconds, k=-(-problems // size))
        ideal = best * problems / hosts
        row = [size, round(len(shards) / hosts, 2)]
        for loss in (Loss(), deaths):
          for assignment in ("static", "list", "steal"):
            stages = [
              fleet_stage.run(
                shards, hosts, assignment=assignment, loss=loss, seed=seed
              )
              for seed in range(_SEEDS if loss.between else 1)
            ]
            over = statistics.median(each.seconds for each in stages) / ideal
            wasted = statistics.median(
              (each.lost + each.twice) / (each.useful + each.lost + each.twice)
              for each in stages
            )
            row.append(f"{over:.2f} ({percent(wasted)})")
        rows.append(row)
      table(
        f"{problems} problems, {hosts} hosts: time over the ideal of "
        f"{best * problems / hosts / 3600:.3g} hours (lost or done twice)",
        ["shard_size", "a host", "static", "list", "steal"]
        + [f"{each}, deaths" for each in ("static", "list", "steal")],
        rows,
      )


def main(_) -> None:
  record = json.loads(_RECORD.read_text())
  parts = {
    "call": show_call,
    "host": show_host,
    "tail": show_tail,
    "stage": show_stage,
    "what_if": show_what_if,
    "attempts": show_attempts,
  }
  for name in _PART.value:
    parts[name](record)


if __name__ == "__main__":
  app.run(main)
