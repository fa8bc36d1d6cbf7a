"""A gcloud that is not there: its grammar, its states, and what goes wrong.

  FAKE_CLOUD=FOLDER python fake_gcloud.py compute tpus queued-resources list ...

The grammar is that of the command reference, as far as the launch scripts could
use it: an unknown flag or a missing one ends with 2, as in gcloud. A worker is
a home folder, and ssh runs a shell there. FOLDER holds state.json, the record
calls.jsonl, and plan.json: what is to go wrong, and when.
"""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

CLOUD = pathlib.Path(os.environ.get("FAKE_CLOUD", "no_cloud"))
WAITING = ["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING"]
# The page "TPU software versions", by the beginning of an accelerator type.
IMAGES = {
  "v4": "tpu-ubuntu2204-base",
  "v5litepod": "v2-alpha-tpuv5-lite",
  "v5p": "v2-alpha-tpuv5",
  "v6e": "v2-alpha-tpuv6e",
}


class Refused(Exception):
  """The service says no; gcloud ends with 1."""


def workers_of(accelerator: str) -> int:
  """Returns how many machines a type has, by the pages of the TPU versions."""
  kind, _, size = accelerator.partition("-")
  if kind in ("v4", "v5p"):  # Named by TensorCores, two a chip.
    return max(1, int(size) // 8)
  return int(size) // 4 if int(size) > 8 else 1


def grammar() -> argparse.ArgumentParser:
  """Returns the commands, as `gcloud COMMAND --help` shows them."""

  def command(parent, name, *, wide=True):
    parser = parent.add_parser(name, allow_abbrev=False)
    if wide:
      for flag in ("--project", "--format"):
        parser.add_argument(flag)
      parser.add_argument("--quiet", action="store_true")
    return parser

  def group(parent, name):
    parser = command(parent, name, wide=False)
    return parser.add_subparsers(dest=name, required=True)

  def flags(parser, *names):
    for name in names:
      parser.add_argument(name)

  def switches(parser, *names):
    for name in names:
      parser.add_argument(name, action="store_true")

  root = argparse.ArgumentParser("gcloud", allow_abbrev=False)
  top = root.add_subparsers(dest="top", required=True)
  tpus = group(group(top, "compute"), "tpus")

  queued = group(tpus, "queued-resources")
  create = command(queued, "create")
  create.add_argument("name")
  flags(create, "--network", "--subnetwork", "--service-account", "--tags")
  flags(create, "--labels", "--metadata", "--description", "--data-disk")
  flags(create, "--valid-after-duration", "--valid-until-duration")
  switches(create, "--async", "--internal-ips", "--guaranteed")
  switches(create, "--reserved", "--spot")
  create.add_argument("--runtime-version", required=True)
  which = create.add_mutually_exclusive_group(required=True)
  flags(which, "--accelerator-type", "--topology")
  nodes = create.add_mutually_exclusive_group(required=True)
  flags(nodes, "--node-id", "--node-count")
  delete = command(queued, "delete")
  delete.add_argument("name")
  switches(delete, "--async", "--force")
  describe = command(queued, "describe")
  describe.add_argument("name")
  lists = [command(queued, "list")]

  vm = group(tpus, "tpu-vm")
  lists.append(command(vm, "list"))
  ssh = command(vm, "ssh")
  ssh.add_argument("name")
  flags(ssh, "--command", "--output-directory")
  ssh.add_argument("--ssh-flag", action="append")
  scp = command(vm, "scp")
  scp.add_argument("sources", nargs="+")
  scp.add_argument("destination")
  switches(scp, "--recurse", "--compress")
  for each in (ssh, scp):
    each.add_argument("--worker", default="0")
    switches(each, "--internal-ip", "--plain")
  for each in lists:
    flags(each, "--filter", "--limit")
  for each in (create, delete, describe, *lists, ssh, scp):
    # Of the configuration, were there one.
    each.add_argument("--zone", required=True)

  buckets = group(group(top, "storage"), "buckets")
  command(buckets, "describe").add_argument("url")
  create = command(buckets, "create")
  create.add_argument("url", nargs="+")
  flags(create, "--location", "--default-storage-class")
  switches(create, "--uniform-bucket-level-access")
  switches(create, "--public-access-prevention")

  clusters = group(group(top, "container"), "clusters")
  credentials = command(clusters, "get-credentials")
  credentials.add_argument("name")
  flags(credentials, "--location")
  return root


@contextlib.contextmanager
def the_state():
  """Gives what there is, for one call at a time."""
  with (CLOUD / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    file = CLOUD / "state.json"
    state = {"tpus": {}, "buckets": [], "plan": {}}
    if file.exists():
      state = json.loads(file.read_text())
    try:
      yield state
    finally:
      file.write_text(json.dumps(state))


def planned(state: dict, what: str) -> str | None:
  """Takes the next thing that goes wrong with `what`, None if none does."""
  plan = state["plan"].get(what, [])
  return plan.pop(0) if plan else None


def found(state: dict, args) -> dict:
  tpu = state["tpus"].get(args.name)
  if tpu is None or tpu["zone"] != args.zone:
    raise Refused(f"NOT_FOUND: Resource '{args.name}' was not found")
  return tpu


def create(state: dict, args) -> None:
  kind = args.accelerator_type.rpartition("-")[0]
  if args.name in state["tpus"]:
    raise Refused(f"ALREADY_EXISTS: Resource '{args.name}' already exists")
  if args.runtime_version != IMAGES[kind]:
    raise Refused("INVALID_ARGUMENT: the runtime version is of another TPU")
  how = planned(state, "create")
  if how == "quota":
    raise Refused("RESOURCE_EXHAUSTED: Quota limit 'TPUs' has been exceeded")
  waiting = WAITING if how == "slow" else WAITING[-1:]
  states = [*waiting, "FAILED" if how == "fails" else "ACTIVE"]
  state["tpus"][args.name] = {
    "zone": args.zone,
    "states": states,
    "node": "READY",
    "workers": workers_of(args.accelerator_type),
  }


def delete(state: dict, args) -> None:
  tpu = found(state, args)
  now = tpu["states"][0]
  if not args.force and now not in ("ACCEPTED", "FAILED", "SUSPENDED"):
    raise Refused(f"FAILED_PRECONDITION: it is {now}: want --force")
  if not args.quiet:
    raise Refused("a person would be asked")
  shut_down(args.name)
  del state["tpus"][args.name]


def describe(state: dict, args) -> None:
  print(f"state:\n  state: {found(state, args)['states'][0]}")


def list_queued(state: dict, args) -> None:
  if args.format != "value(name.basename(),state.state)":
    raise Refused(f"this fake knows no format {args.format}")
  for name, tpu in state["tpus"].items():
    if tpu["zone"] == args.zone:
      print(f"{name}\t{tpu['states'][0]}")
      # It goes on from look to look, up to its last state.
      tpu["states"] = tpu["states"][1:] or tpu["states"]


def list_nodes(state: dict, args) -> None:
  if args.format != "value(name.basename(),state)":
    raise Refused(f"this fake knows no format {args.format}")
  for name, tpu in state["tpus"].items():
    if tpu["zone"] == args.zone and tpu["states"][0] == "ACTIVE":
      print(f"{name}\t{tpu['node']}")


def reachable(state: dict, args) -> list[int]:
  """Returns the workers of --worker, if the TPU is one that can be reached."""
  tpu = found(state, args)
  if tpu["states"][0] != "ACTIVE" or tpu["node"] != "READY":
    raise Refused(f"the TPU is in state {tpu['node']}: not usable")
  if args.worker == "all":
    return list(range(tpu["workers"]))
  workers = [int(each) for each in args.worker.split(",")]
  if max(workers) >= tpu["workers"]:
    raise Refused(f"worker index {max(workers)} is too large")
  return workers


def home(name: str, worker: int) -> pathlib.Path:
  folder = CLOUD / name / f"worker-{worker}"
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def scp(state: dict, args) -> int:
  args.name, _, path = args.destination.partition(":")
  for worker in reachable(state, args):
    for source in args.sources:
      shutil.copy(source, home(args.name, worker) / path)
  return 0


def start_ssh(state: dict, args) -> dict[int, subprocess.Popen | int]:
  """Starts the command on each worker; 255 where ssh does not get there."""
  workers = reachable(state, args)
  verb = re.match(r"bash worker\.sh (\w+)", args.command)
  how = planned(state, f"ssh {verb[1] if verb else 'has'}") or ""
  if how in ("preempted", "deleted"):
    shut_down(args.name)
    if how == "deleted":
      del state["tpus"][args.name]
    else:
      gone = {"states": ["SUSPENDING", "SUSPENDED"], "node": "PREEMPTED"}
      state["tpus"][args.name].update(gone)
    return {worker: 255 for worker in workers}
  started: dict[int, subprocess.Popen | int] = {}
  for worker in workers:
    folder = home(args.name, worker)
    if how == f"lost {worker}":
      started[worker] = 255
      continue
    started[worker] = subprocess.Popen(
      ["bash", "-c", args.command],
      cwd=folder,
      env=os.environ
      | {
        "HOME": str(folder),
        "PATH": f"{CLOUD / 'worker_bin'}:/usr/bin:/bin",
        "WORKER": str(worker),
      },
      stdin=subprocess.DEVNULL,
    )
  return started


def finish_ssh(started: dict[int, subprocess.Popen | int]) -> int:
  """Waits for all, and returns the first status that is not 0."""
  statuses = {}
  for worker, each in started.items():
    statuses[worker] = each if isinstance(each, int) else each.wait()
    if statuses[worker]:
      print(
        f"##### Command execution on worker {worker} failed with exit status "
        f"{statuses[worker]}. Continuing.",
        file=sys.stderr,
      )
  return next((status for status in statuses.values() if status), 0)


def shut_down(name: str) -> None:
  """Ends machines as they end: SIGTERM to each process, later SIGKILL."""
  folder = CLOUD / name
  for number in (signal.SIGTERM, signal.SIGKILL):
    for pid in processes(folder):
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    until = time.monotonic() + 5
    while processes(folder) and time.monotonic() < until:
      time.sleep(0.02)
  shutil.rmtree(folder, ignore_errors=True)


def processes(folder: pathlib.Path) -> list[int]:
  """Returns the processes whose home is below a folder."""
  pids = []
  for entry in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
      if f"HOME={folder}/".encode() in (entry / "environ").read_bytes():
        pids.append(int(entry.name))
  return pids


def describe_bucket(state: dict, args) -> None:
  if args.url not in state["buckets"]:
    raise Refused(f"{args.url} not found: 404.")
  print(args.url.removeprefix("gs://"))


def create_bucket(state: dict, args) -> None:
  state["buckets"] += args.url


COMMANDS = {
  "compute tpus queued-resources create": create,
  "compute tpus queued-resources delete": delete,
  "compute tpus queued-resources describe": describe,
  "compute tpus queued-resources list": list_queued,
  "compute tpus tpu-vm list": list_nodes,
  "compute tpus tpu-vm scp": scp,
  "storage buckets describe": describe_bucket,
  "storage buckets create": create_bucket,
  "container clusters get-credentials": lambda state, args: None,
}


def main(argv: list[str]) -> int:
  args = grammar().parse_args(argv)
  name = re.sub(r" [^a-z].*", "", " ".join(argv))
  started = {}
  with the_state() as state:
    try:
      if " ssh " in " ".join(argv[:5]):
        started = start_ssh(state, args)
      else:
        words = next(each for each in COMMANDS if name.startswith(each))
        COMMANDS[words](state, args)
    except Refused as error:
      print(f"ERROR: (gcloud.{'.'.join(argv[:4])}) {error}", file=sys.stderr)
      return 1
  return finish_ssh(started)


if __name__ == "__main__":
  with (CLOUD / "calls.jsonl").open("a") as record:
    record.write(json.dumps(["gcloud", *sys.argv[1:]]) + "\n")
  sys.exit(main(sys.argv[1:]))
