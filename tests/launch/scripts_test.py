"""The scripts as texts, and the table that they and README.md share."""

import csv
import pathlib
import re
import shlex
import shutil
import subprocess
import sysconfig

from absl.testing import absltest, parameterized

from rstar_jax.config.schema import Config
from rstar_jax.storage import stopping
from rstar_jax.tools.aot import chips
from rstar_jax.tools.preflight import sizes
from tests.docs import check, reading
from tests.launch import cloud as cloud_lib
from tests.launch import fake_gcloud

LAUNCH = cloud_lib.LAUNCH
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
CALLED = [LAUNCH / f"{name}.sh" for name in ("tpu_vm", "gke", "worker", "pod")]
FIT = "search_qwen2_5_math_7b"


def table() -> list[dict[str, str]]:
  with (LAUNCH / "accelerators.tsv").open() as file:
    return list(csv.DictReader(file, delimiter="\t"))


def call(script: pathlib.Path, *words: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    ["bash", script, *words],
    env={"PATH": "/usr/bin:/bin"},
    capture_output=True,
    text=True,
  )


def faults(config: Config, topology: str) -> list[str]:
  """Returns what `rstar_jax check` calls an error of a TPU's chips."""
  found = sizes.of_chips(config, chips.parse(topology), stopping.GRACE_SECONDS)
  return [each.said for each in found if each.level == "error"]


class ScriptsTest(parameterized.TestCase):
  def test_shellcheck(self):
    scripts = sysconfig.get_path("scripts")
    shellcheck = shutil.which("shellcheck", path=scripts)
    if shellcheck is None:
      self.fail("no shellcheck: pip install -e '.[test]'")
    done = subprocess.run(
      [shellcheck, "--shell=bash", "--severity=style", *SCRIPTS],
      capture_output=True,
      text=True,
    )
    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

  @parameterized.parameters(*CALLED)
  def test_help(self, script):
    done = call(script, "--help")
    self.assertEqual(done.returncode, 0)
    said = done.stdout + done.stderr
    self.assertIn(script.name, said)
    self.assertNotIn("#!/", said)

  @parameterized.parameters(*CALLED)
  def test_called_without_a_word(self, script):
    self.assertEqual(call(script).returncode, 2)

  @parameterized.parameters(*CALLED[:2])
  def test_a_wrong_word(self, script):
    done = call(script, "explode")
    self.assertEqual(done.returncode, 2)
    self.assertIn("explode: want one of", done.stderr)

  @parameterized.parameters(
    ("tpu_vm", "status", "gcloud"),
    ("tpu_vm", "bucket", "gcloud"),
    ("gke", "status", "xpk"),
    ("gke", "logs", "gcloud"),
  )
  def test_a_program_that_is_not_there(self, script, verb, program):
    folder = pathlib.Path(self.create_tempdir().full_path)
    for name in ("bash", "basename", "dirname", "cut"):
      (folder / name).symlink_to(shutil.which(name))
    names = "TPU_NAME TPU_ZONE TPU_PROJECT CLUSTER WORKLOAD".split()
    variables = {"PATH": str(folder), "WORKDIR": "gs://a/b"}
    said = f"{script}.sh: there is no {program} here; install it: "
    for words in ([verb], ["--dry-run", verb]):
      done = subprocess.run(
        ["bash", LAUNCH / f"{script}.sh", *words],
        env=variables | dict.fromkeys(names, "a"),
        capture_output=True,
        text=True,
      )
      if words == [verb]:
        self.assertStartsWith(done.stderr, said)
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
      else:
        self.assertNotIn(said, done.stderr)

  @parameterized.parameters(*SCRIPTS)
  def test_lines_are_short(self, script):
    for line in script.read_text().splitlines():
      self.assertLessEqual(len(line), 80, line)


class TableTest(parameterized.TestCase):
  @parameterized.parameters(*table())
  def test_agrees_with_the_compiler_s(self, **row):
    slice_ = chips.parse(row["topology"])
    chip = slice_.chip
    self.assertEqual(int(row["chips"]), slice_.chips)
    self.assertEqual(float(row["usable_gib"]) * 2**30, chip.usable_bytes)
    # What a program can have is the published capacity, less a little.
    capacity = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}[chip.name]
    self.assertEqual(float(row["hbm_gib"]), capacity)
    self.assertLess(abs(float(row["usable_gib"]) / capacity - 1), 0.05)
    self.assertEqual(int(row["workers"]), slice_.hosts)
    # Types of v4 and v5p count TensorCores.
    kind, _, number = row["tpu_type"].partition("-")
    self.assertEqual(int(number), slice_.chips * chip.cores)
    self.assertEqual(kind, {"v5e": "v5litepod"}.get(chip.name, chip.name))

  @parameterized.parameters(*table())
  def test_agrees_with_the_pages_of_cloud(self, **row):
    kind = row["tpu_type"].partition("-")[0]
    self.assertEqual(row["image"], fake_gcloud.IMAGES[kind])
    workers = fake_gcloud.workers_of(row["tpu_type"])
    self.assertEqual(int(row["workers"]), workers)

  def test_has_all_kinds_and_a_config_that_exists(self):
    kinds = {row["topology"].partition(":")[0] for row in table()}
    self.assertEqual(kinds, set(chips.CHIPS))
    name = FIT.removeprefix("search_")
    self.assertTrue((cloud_lib.ROOT / "configs" / f"{name}.py").exists())

  def test_is_the_table_of_the_readme(self):
    lines = [
      "| TPU_TYPE | topology | chips | workers | HBM of a chip, GiB | "
      "TPU_IMAGE | search with the 7B |",
      "| --- | --- | ---: | ---: | --- | --- | --- |",
    ] + [
      f"| {row['tpu_type']} | {row['topology']} | {row['chips']} | "
      f"{row['workers']} | {row['hbm_gib']}, {row['usable_gib']} usable | "
      f"{row['image']} | {row[FIT]} |"
      for row in table()
    ]
    readme = (LAUNCH / "README.md").read_text()
    self.assertIn("\n".join(lines), readme, "\n".join(lines))


class PagesTest(absltest.TestCase):
  """What the pages start fits the TPU that they start it on."""

  def test_the_readme(self):
    tried = []
    for _, block in check.shown("launch/README.md"):
      before = []
      for command in reading.commands(block.text):
        if check.is_assignment(command):
          before.append(command)
        shown = check.expanded(command, before)
        words = shlex.split(shown, comments=True)
        words = [each for each in words if each != "--dry-run"]
        if set(words[1:2]) & {"check", "keep", "run"}:
          named = "$CONFIG", "$TPU_TYPE"
          config, kind = (check.expanded(each, before) for each in named)
          with self.subTest(command):
            config = reading.config(f"--config={config}", *words[2:])
            self.assertEmpty(faults(config, kind))
          tried.append(words[0])
    wanted = ["launch/tpu_vm.sh"] * 2 + ["launch/gke.sh"] * 3
    self.assertEqual(tried, wanted)

  def test_hosts_of_one_to_eight_chips(self):
    page = (cloud_lib.ROOT / "docs" / "tpu.md").read_text()
    (more,) = re.findall("On\\s+a host of eight add `(.*?)`", page)
    tiny = "--config=configs/tiny.py"
    for topology in ("v5e:1x1", "v6e:2x2"):
      self.assertEmpty(faults(reading.config(tiny), topology))
    for topology in ("v5e:2x4", "v6e:2x4"):
      self.assertNotEmpty(faults(reading.config(tiny), topology))
      self.assertEmpty(faults(reading.config(tiny, more), topology))


if __name__ == "__main__":
  absltest.main()
