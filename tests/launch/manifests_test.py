"""The manifests and the Dockerfile, against what they are about."""

import ast
import json
import pathlib
import re
import shlex

import yaml
from absl.testing import absltest, parameterized

from rstar_jax.config import flag
from rstar_jax.storage import layout, stopping
from rstar_jax.tools.aot import chips
from tests.launch import bare_root
from tests.launch import cloud as cloud_lib

ROOT = cloud_lib.ROOT
FOLDER = cloud_lib.LAUNCH / "kubernetes"
NAMES = ("train", "search", "ray")
# As GKE calls kinds of chips.
KINDS = {"tpu-v5-lite-podslice": "v5e", "tpu-v6e-slice": "v6e"}
# What the instructions of a Dockerfile are, those that ours needs.
INSTRUCTIONS = ("FROM", "RUN", "ARG", "WORKDIR", "COPY", "USER", "CMD")


def manifest(name: str) -> dict:
  """Returns a manifest, which is one document."""
  (found,) = yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text())
  return found


def extras() -> set[str]:
  """Returns the extras that setup.py declares."""
  tree = ast.parse((ROOT / "setup.py").read_text())
  (declared,) = (
    node.value
    for node in ast.walk(tree)
    if isinstance(node, ast.Assign) and node.targets[0].id == "EXTRAS"
  )
  return {ast.literal_eval(each) for each in declared.keys}


def jobs(name: str) -> list[dict]:
  """Returns the jobs of a JobSet, each with its number of replicas."""
  return [
    each["template"]["spec"] | {"replicas": each["replicas"]}
    for each in manifest(name)["spec"]["replicatedJobs"]
  ]


def pods(name: str) -> list[dict]:
  """Returns the specs of all pods of a manifest that have chips."""
  if name == "ray":
    groups = manifest(name)["spec"]["workerGroupSpecs"]
    return [each["template"]["spec"] for each in groups]
  return [each["template"]["spec"] for each in jobs(name)]


def slice_of(pod: dict) -> chips.Slice:
  """Returns the slice that a pod is to be on."""
  wanted = pod["nodeSelector"]
  kind = KINDS[wanted["cloud.google.com/gke-tpu-accelerator"]]
  return chips.parse(f"{kind}:{wanted['cloud.google.com/gke-tpu-topology']}")


class ManifestTest(parameterized.TestCase):
  @parameterized.parameters(*NAMES)
  def test_a_queue_and_a_time_to_save(self, name):
    found = manifest(name)
    self.assertIn("kueue.x-k8s.io/queue-name", found["metadata"]["labels"])
    for pod in pods(name):
      grace = pod["terminationGracePeriodSeconds"]
      self.assertGreater(grace, stopping.GRACE_SECONDS)

  @parameterized.parameters(*NAMES)
  def test_a_pod_has_the_chips_of_a_host(self, name):
    for pod in pods(name):
      (container,) = pod["containers"]
      limits = container["resources"]["limits"]
      self.assertEqual(limits["google.com/tpu"], slice_of(pod).host.chips)

  def test_training_has_all_hosts_of_a_slice(self):
    (job,) = jobs("train")
    hosts = slice_of(job["template"]["spec"]).hosts
    self.assertEqual((job["completions"], job["parallelism"]), (hosts, hosts))
    # What is lost is begun again by the JobSet, all hosts together.
    self.assertEqual(job["backoffLimit"], 0)
    policy = manifest("train")["spec"]["failurePolicy"]
    self.assertGreater(policy["maxRestarts"], 0)

  def test_searchers_are_hosts_with_numbers_of_their_own(self):
    (job,) = jobs("search")
    self.assertEqual(slice_of(job["template"]["spec"]).hosts, 1)
    self.assertEqual(job["completionMode"], "Indexed")
    count = job["completions"]
    self.assertEqual(job["parallelism"], count)
    (container,) = job["template"]["spec"]["containers"]
    self.assertIn(f"--processes={count}", container["args"])
    self.assertIn("--process=$(JOB_COMPLETION_INDEX)", container["args"])
    # One that dies is started again, and no other with it.
    self.assertGreater(job["backoffLimitPerIndex"], 0)
    self.assertNotIn("failurePolicy", manifest("search")["spec"])

  def test_ray_has_workers_that_can_come_and_go(self):
    spec = manifest("ray")["spec"]
    self.assertTrue(spec["enableInTreeAutoscaling"])
    # Kueue's webhook refuses it otherwise.
    annotations = manifest("ray")["metadata"]["annotations"]
    self.assertEqual(annotations["kueue.x-k8s.io/elastic-job"], "true")
    (group,) = spec["workerGroupSpecs"]
    # Ray's autoscaler ends where it cannot tell them.
    (worker,) = group["template"]["spec"]["containers"]
    self.assertIn("cpu", worker["resources"]["limits"])
    self.assertEqual(group["numOfHosts"], slice_of(pods("ray")[0]).hosts)
    self.assertBetween(
      group["replicas"], group["minReplicas"], group["maxReplicas"]
    )

  @parameterized.parameters("train", "search")
  def test_the_command_is_one(self, name):
    (pod,) = pods(name)
    (container,) = pod["containers"]
    program, script, extra = container["command"]
    self.assertEqual((program, script), ("bash", "launch/pod.sh"))
    self.assertLessEqual(set(extra.split(",")), extras())
    self.check_command(container["args"])

  def test_the_command_for_ray_is_one(self):
    text = (FOLDER / "ray.yaml").read_text()
    shown = re.search(r"rstar_jax (\w+ --(?:.|\n)*?)\n#\n", text).group(1)
    command, *words = shlex.split(re.sub(r"\\\n#\s*", " ", shown))
    self.check_command([f"--stage={command}", *words])
    self.assertIn('--config.ray.needs=("TPU=4",)', words)

  def check_command(self, words: list[str]):
    given = dict(word.removeprefix("--").split("=", 1) for word in words)
    self.assertIn(given["stage"], layout.STAGES)
    config = flag.load_config(str(ROOT / given["config"]))
    for name in given:
      part = config
      for field in name.split(".")[1:]:
        # A field that the config has not raises.
        part = getattr(part, field)


class DockerfileTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.steps = bare_root.steps((ROOT / "Dockerfile").read_text())

  def of(self, word: str) -> list[str]:
    return [rest for found, rest in self.steps if found == word]

  def test_instructions(self):
    self.assertEqual(self.steps[0][0], "FROM")
    for word, _ in self.steps:
      self.assertIn(word, INSTRUCTIONS)
    # What the policy writes runs by no root, and so does all that is started.
    order = [word for word, _ in self.steps]
    self.assertLess(order.index("USER"), order.index("CMD"))
    self.assertGreater(
      order.index("USER"), len(order) - order[::-1].index("RUN") - 1
    )

  def test_the_python_is_one_that_the_package_takes(self):
    (base,) = self.of("FROM")
    found = re.fullmatch(r"python:(\d+)\.(\d+)-slim", base)
    setup = (ROOT / "setup.py").read_text()
    least = re.search(r'python_requires=">=(\d+)\.(\d+)"', setup)
    self.assertGreaterEqual(
      tuple(map(int, found.groups())), tuple(map(int, least.groups()))
    )

  def test_extras(self):
    (given,) = self.of("ARG")
    self.assertLessEqual(
      set(given.removeprefix("EXTRAS=").split(",")), extras()
    )
    (install,) = (each for each in self.of("RUN") if "pip install" in each)
    self.assertIn('".[${EXTRAS}]"', install)

  def test_without_arguments_it_runs_the_demo(self):
    (command,) = self.of("CMD")
    program, *words = json.loads(command)
    given = dict(word.removeprefix("--").split("=", 1) for word in words)
    self.assertEqual(program, "rstar_jax")
    flag.load_config(str(ROOT / given["config"]))
    # Of a folder that the image has made for whom it runs as.
    (made,) = (each for each in self.of("RUN") if "useradd" in each)
    folder = str(pathlib.PurePosixPath(given["workdir"]).parent)
    self.assertIn(f"mkdir {folder} ", made)
    (user,) = self.of("USER")
    self.assertRegex(made, rf"useradd .*{user}.*chown -R {user} .*{folder}")

  def test_the_folder_of_the_demo_is_there_before_docker_makes_it(self):
    for name in ("Dockerfile", "docs/laptop.md"):
      lines = re.findall(
        r"(?m)^(?:#   )?((?:mkdir|docker run) .*?)(?:  +#.*)?$",
        (ROOT / name).read_text(),
      )
      folder, run = (shlex.split(each) for each in lines)
      self.assertEqual(folder[:2], ["mkdir", "-p"])
      self.assertIn(f"--volume=$PWD/{folder[2]}:/runs", run)

  def test_what_is_left_out_is_none_of_the_package(self):
    lines = (ROOT / ".dockerignore").read_text().split()
    self.assertIn(".git", lines)
    for name in ("setup.py", "rstar_jax", "configs", "launch", "README.md"):
      self.assertTrue((ROOT / name).exists())
      self.assertNotIn(name, lines)


if __name__ == "__main__":
  absltest.main()
