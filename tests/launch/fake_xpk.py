"""An xpk, and a kubectl, that are not there: their grammar alone.

xpk's is that of its own parser (version 1.16.0, src/xpk/parser), as far as the
launch scripts could use it.
"""

import argparse
import json
import os
import pathlib
import re
import sys

CLOUD = pathlib.Path(os.environ["FAKE_CLOUD"])


def name(value: str) -> str:
  if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", value) or len(value) > 40:
    raise argparse.ArgumentTypeError(f"no name: {value}")
  return value


def folder(value: str) -> str:
  if not pathlib.Path(value, "launch", "pod.sh").exists():
    raise argparse.ArgumentTypeError(f"no folder with the repository: {value}")
  return value


def xpk() -> argparse.ArgumentParser:
  root = argparse.ArgumentParser("xpk")
  groups = root.add_subparsers(required=True)
  cluster = groups.add_parser("cluster").add_subparsers(required=True)
  workload = groups.add_parser("workload").add_subparsers(required=True)
  commands = {
    f"{group} {verb}": parent.add_parser(verb)
    for group, parent, verbs in (
      ("cluster", cluster, ("create", "delete")),
      ("workload", workload, ("create", "list", "delete")),
    )
    for verb in verbs
  }
  for parser in commands.values():
    parser.add_argument("--cluster", type=name, required=True)
    parser.add_argument("--project")
    parser.add_argument("--zone")
  for each in ("cluster create", "cluster delete", "workload delete"):
    commands[each].add_argument("--force", action="store_true")
  for each in ("cluster create", "workload create"):
    parser = commands[each]
    parser.add_argument("--tpu-type", required=True)
    parser.add_argument("--num-slices", type=int)
    parser.add_argument("--on-demand", action="store_true")
    parser.add_argument("--spot", action="store_true")
    parser.add_argument("--reservation")
  parser = commands["workload create"]
  parser.add_argument("--workload", type=name, required=True)
  parser.add_argument("--command", required=True)
  parser.add_argument("--base-docker-image")
  parser.add_argument("--script-dir", type=folder)
  parser.add_argument("--docker-image")
  parser.add_argument("--max-restarts")
  parser.add_argument("--restart-on-exit-codes")
  commands["workload delete"].add_argument("--workload", type=name)
  commands["workload list"].add_argument("--wait-for-job-completion")
  return root


def kubectl() -> argparse.ArgumentParser:
  root = argparse.ArgumentParser("kubectl", allow_abbrev=False)
  logs = root.add_subparsers(required=True).add_parser("logs")
  logs.add_argument("--selector", required=True)
  logs.add_argument("--follow", action="store_true")
  logs.add_argument("--prefix", action="store_true")
  logs.add_argument("--tail", type=int)
  logs.add_argument("--max-log-requests", type=int)
  return root


if __name__ == "__main__":
  with (CLOUD / "calls.jsonl").open("a") as record:
    record.write(json.dumps(sys.argv[1:]) + "\n")
  {"xpk": xpk, "kubectl": kubectl}[sys.argv[1]]().parse_args(sys.argv[2:])
  status = CLOUD / "xpk_status"
  sys.exit(int(status.read_text()) if status.exists() else 0)
