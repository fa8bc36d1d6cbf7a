"""A worker's Python that is not there: venv, pip, and a run that is told how.

The run writes its arguments into the folder FAKE_CLOUD and behaves as the next
line of the file `runs` there says: "well" ends with 0, a number ends with that
number, "long" goes on until SIGTERM, then saves and ends with 0.
"""

import os
import pathlib
import signal
import sys
import time

CLOUD = pathlib.Path(os.environ["FAKE_CLOUD"])


def say(text: str) -> None:
  worker = os.environ.get("WORKER", "0")
  with (CLOUD / f"said_{worker}").open("a") as file:
    file.write(text + "\n")


def make_venv(folder: str) -> None:
  python = pathlib.Path(folder, "bin", "python")
  python.parent.mkdir(parents=True, exist_ok=True)
  python.unlink(missing_ok=True)
  python.symlink_to(CLOUD / "worker_bin" / "python3")


def run() -> None:
  terms = []

  def stop(*_):
    terms.append(1)
    say("SIGTERM")

  signal.signal(signal.SIGTERM, stop)
  say("main " + " ".join(sys.argv[1:]))
  print("a line of the run", flush=True)
  # Each worker has a line of its own, by how often it was started.
  mine = CLOUD / f"said_{os.environ.get('WORKER', '0')}"
  starts = mine.read_text().count("main -u ")
  runs = (CLOUD / "runs").read_text().split()
  how = runs[min(starts, len(runs)) - 1]
  while how == "long" and not terms:
    time.sleep(0.01)
  if how == "long":
    time.sleep(0.1)  # What it saves takes a moment, and needs to be let.
    say(f"saved after {len(terms)}")
  sys.exit(0 if how in ("long", "well") else int(how))


def main(argv: list[str]) -> None:
  words = [each for each in argv if each != "-u"]
  if words[:1] == ["-c"]:
    sys.exit("libtpu" in words[1])
  if words[:2] == ["-m", "venv"]:
    make_venv(words[2])
  elif words[:3] == ["-m", "pip", "install"]:
    say(" ".join(words[1:]))
    sys.exit((CLOUD / "no_pip").exists())
  elif words[:2] == ["-m", "rstar_jax.main"]:
    run()
  else:
    sys.exit(f"this fake knows no python {argv}")


if __name__ == "__main__":
  main(sys.argv[1:])
