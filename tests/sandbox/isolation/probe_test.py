"""The probe's report with layers removed, as root and as a user."""

import json
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.sandbox.isolation import (
  attempts,
  confinement,
  kernel,
  landlock,
  probe,
)
from rstar_jax.sandbox.pool import Limits, Sandbox
from tests.sandbox import forks

_LIMITS = Limits(memory_bytes=1 << 28)
_HOOK = "audit hook (not a boundary)"
# Layers that each enforce a restriction alone, if they exist.
_ALONE = {
  "net": ("seccomp",),
  "unix": ("seccomp",),
  "read": ("landlock",),
  "write": ("seccomp", "landlock"),
  "create": ("seccomp", "landlock"),
  "remove": ("seccomp", "landlock"),
  "exec": ("seccomp", "landlock"),
  "ptrace": ("seccomp", "landlock"),
  "kill": ("seccomp",),
  "ctypes": ("seccomp",),
  "thread": ("seccomp",),
  "memory": ("rlimits",),
}


def _probed(without=()) -> dict:
  """Runs the probe in a fork, as at the start of a worker."""
  return json.loads(
    forks.forked(lambda: json.dumps(probe.probe(1 << 30, without)))
  )


class ProbeTest(parameterized.TestCase):
  def check(self, report: dict) -> None:
    there = [
      name
      for name, note in report["layers"].items()
      if not note.startswith(("missing", "switched off"))
    ]
    for name, layers in _ALONE.items():
      if "the system" in report[name]:
        continue
      for layer in set(layers) & set(there):
        self.assertIn(layer, report[name])
    # The report names what is not enforced, and what is missing.
    for name in attempts.ATTEMPTS:
      weak = report[name] in ("nothing", _HOOK)
      self.assertEqual(f"{name}: {report[name]}" in report["degraded"], weak)
    for name in set(confinement.LAYERS) - set(there):
      self.assertIn(f"{name}: {report['layers'][name]}", report["degraded"])
    for line in report["degraded"]:
      self.assertNotIn("does not work", line)
      self.assertIn(line.partition(":")[0], probe.REQUIRABLE)

  @parameterized.parameters("", *confinement.LAYERS)
  def test_without(self, layer):
    report = _probed((layer,) if layer else ())
    self.check(report)
    if layer:
      self.assertEqual(report["layers"][layer], "switched off")
      for name in attempts.ATTEMPTS:
        self.assertNotIn(layer, report[name].replace(_HOOK, ""))

  def test_as_an_ordinary_user(self):
    report = json.loads(
      forks.as_ordinary_user(
        "import json; from rstar_jax.sandbox.isolation import probe; "
        "print(json.dumps(probe.probe(1 << 30)))"
      )
    )
    # The interpreter may be the system's, without packages.
    report["degraded"] = [
      line
      for line in report["degraded"]
      if "does not work: ModuleNotFoundError" not in line
    ]
    self.check(report)
    self.assertIn("only root", report["layers"]["credentials"])
    if report["layers"]["seccomp"] == "there":
      self.assertEqual(report["fork"], "rlimits + seccomp")

  def test_as_root(self):
    report = _probed()
    if not report["layers"]["credentials"].startswith("private user"):
      self.skipTest(report["layers"]["credentials"])
    self.assertIn("credentials", report["fork"])
    self.assertIn("credentials", report["environ"])

  def test_a_machine_that_is_not_linux(self):
    with mock.patch.object(kernel, "LINUX", False):
      report = _probed()
    for name in ("net", "read", "write", "exec", "fork", "kill"):
      self.assertEqual(report[name], _HOOK)
    self.assertStartsWith(report["degraded"][0], "system: this is not Linux")
    self.assertIn(report["degraded"][0], probe.lacking(report, ("system",)))
    for name in ("ptrace", "ctypes"):  # Not tried.
      self.assertEqual(report[name], "nothing")
    self.assertEqual(report["memory"], "rlimits")
    self.assertEqual(report["parent_death"], "end of file only")
    for name in ("seccomp", "landlock", "credentials", "namespaces"):
      self.assertStartsWith(report["layers"][name], "missing: ")

  def test_a_layer_that_breaks_programs_is_left_out(self):
    if not landlock.version():
      self.skipTest("this kernel has no landlock")

    with mock.patch.object(landlock, "readable", lambda *_: ("/dev/null",)):
      report = _probed(("namespaces", "credentials", "hook"))
    self.assertStartsWith(
      report["layers"]["landlock"],
      "missing: left out, since with it import fails: ",
    )
    self.assertEqual(report["read"], "nothing")

  def test_names(self):
    probe.check_names(("net", "parent_death", "landlock"), ("hook",))
    with self.assertRaisesRegex(ValueError, "require: 'nets' is none of net,"):
      probe.check_names(("nets",), ())
    with self.assertRaisesRegex(ValueError, "without: 'net' is none of rlim"):
      probe.check_names((), ("net",))

  def test_lacking(self):
    report = {
      "layers": {"seccomp": "there", "landlock": "missing: old kernel"},
      "degraded": ["read: nothing", "kill: nothing", "landlock: missing: old"],
    }
    self.assertEmpty(probe.lacking(report, ("net", "seccomp")))
    self.assertEqual(
      probe.lacking(report, ("net", "read")),
      ["read: nothing", "landlock is missing: old kernel"],
    )


class FactsTest(absltest.TestCase):
  def lines(self, **facts):
    good = dict.fromkeys(("die_with_parent", "adopt_orphans", "proc"), True)
    report, degraded = {}, []
    probe._add_facts(report, degraded, {**good, **facts})
    return [each.partition(": ")[::2] for each in degraded]

  def test_what_the_kernel_did_not_agree_to_is_said(self):
    self.assertEmpty(self.lines())
    for fact, name, start in (
      ("die_with_parent", "parent_death", "end of file only"),
      ("adopt_orphans", "orphans", "nothing collects"),
      ("proc", "orphans", "/proc does not show"),
    ):
      ((found, text),) = self.lines(**{fact: False})
      self.assertEqual(found, name)
      self.assertStartsWith(text, start)


class SandboxTest(absltest.TestCase):
  def test_require_refuses_before_anything_runs(self):
    without = confinement.KERNEL
    with self.assertRaisesRegex(RuntimeError, "net.*seccomp is switched off"):
      Sandbox(1, _LIMITS, require=("net",), without=without)
    with self.assertRaisesRegex(ValueError, "'nets'"):
      Sandbox(1, _LIMITS, require=("nets",))

  def test_require_runs_with_what_holds(self):
    with Sandbox(1, _LIMITS, require=("memory",)) as sandbox:
      report = sandbox.isolation
      self.assertEqual(sandbox.run([["print(5)"]])[0].stdout, "5\n")
    held = [name for name in _ALONE if report[name] not in ("nothing", _HOOK)]
    with Sandbox(1, _LIMITS, require=held) as sandbox:
      self.assertEqual(sandbox.run([["print(6)"]])[0].stdout, "6\n")

  def test_what_the_kernel_refuses_is_blocked(self):
    with Sandbox(1, _LIMITS, without=("hook",)) as sandbox:
      if sandbox.isolation["layers"]["landlock"].startswith("missing"):
        self.skipTest(sandbox.isolation["layers"]["landlock"])
      read = sandbox.run([["open('/etc/passwd')"]])[0]
      self.assertEqual(read.status, "blocked")
      self.assertStartsWith(read.error, "PermissionError: [Errno 13]")
      # An error that the program raises itself is not a refusal.
      said = sandbox.run([["raise PermissionError('no')"]])[0]
      self.assertEqual(said.status, "error")

  def test_the_worker_is_another_user_without_privileges(self):
    with Sandbox(1, _LIMITS) as sandbox:
      if not sandbox.isolation["layers"]["credentials"].startswith("private"):
        self.skipTest(sandbox.isolation["layers"]["credentials"])
      pid = sandbox.pids[0]
      if "pid" in sandbox.isolation["layers"]["namespaces"]:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
          pid = int(file.read())  # The one outside only waits.
      with open(f"/proc/{pid}/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    self.assertNotEqual(lines["Uid"].split()[0], "0")
    self.assertEqual(lines["NoNewPrivs"].strip(), "1")


if __name__ == "__main__":
  absltest.main()
