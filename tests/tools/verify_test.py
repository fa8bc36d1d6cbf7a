"""The command line: files in, verdicts out."""

import contextlib
import io
import json
from unittest import mock

from absl.testing import absltest

from rstar_jax.sandbox import pool
from rstar_jax.tools import verify as program

_SOLUTION = """<code>
x = 6
<end_of_step>
print(7 * x)
<end_of_code>
<output>42<end_of_output>
<answer>It is \\boxed{42}.<end_of_answer>"""


class MainTest(absltest.TestCase):
  def run_main(self, *arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
      program.main(arguments)
    return output.getvalue()

  def test_splits(self):
    self.assertEqual(
      [each.strip() for each in program.split_program(_SOLUTION)],
      ["x = 6", "print(7 * x)"],
    )
    self.assertEqual(
      program.split_program("# %% one\nx = 1\n# %%\n# %%\ny = 2\n"),
      ["x = 1\n", "y = 2\n"],
    )

  def test_runs_steps(self):
    solution = self.create_tempfile("solution.txt", _SOLUTION).full_path
    text = "x = 1\n# %%\nprint(x)\n\n1 / 0\n# %%\nprint(x)"
    steps = self.create_tempfile("steps.py", text).full_path
    output = self.run_main("--workers=1", solution, steps)
    report, rest = json.JSONDecoder().raw_decode(output)
    self.assertIn("degraded", report["isolation"])
    self.assertEqual(
      output[rest:].strip().splitlines(),
      [
        f"{solution}, step 1: ok",
        f"{solution}, step 2: ok",
        "  | 42",
        f"{steps}, step 1: ok",
        f"{steps}, step 2: error",
        "  | 1",
        "  line 3: ZeroDivisionError: division by zero",
      ],
    )

  def test_what_a_program_prints_moves_no_cursor(self):
    text = "print('\\x1b[2J\\x9b31m\\u202e')\n# %%\nraise ValueError('\\x07')"
    steps = self.create_tempfile("steps.py", text).full_path
    lines = self.run_main("--workers=1", steps).splitlines()[-4:]
    self.assertEqual(lines[1], "  | \\x1b[2J\\x9b31m\\u202e")
    self.assertEqual(lines[3], "  line 1: ValueError: \\x07")

  def test_percent_is_a_ratio_if_asked(self):
    text = '{"gold": "1/4", "predicted": "25%"}\n'
    for flags, verdict, name in (
      ((), "different", "pairs.jsonl"),
      (["--percent-is-ratio"], "equal", "pairs.NDJSON"),
    ):
      path = self.create_tempfile(name, text).full_path
      rows = self.run_main(*flags, path).splitlines()
      self.assertEqual(json.loads(rows[0])["verdict"], verdict)

  def test_grades_pairs(self):
    text = (
      '{"gold": "\\\\frac{1}{2}", "predicted": "0.5", "equal": true}\n'
      '{"gold": "7", "predicted": "8", "equal": true}\n'
      '{"gold": "7", "predicted": "\u0667"}\n'
    )
    path = self.create_tempfile("pairs.jsonl", text).full_path
    rows = list(map(json.loads, self.run_main(path).splitlines()))
    self.assertEqual(
      [(row["verdict"], row.get("agrees")) for row in rows[:-1]],
      [("equal", True), ("different", False), ("equal", None)],
    )
    self.assertEqual(
      rows[-1],
      {
        "pairs": 3,
        "equal": 2,
        "different": 1,
        "undecided": 0,
        "precision": 1.0,
        "recall": 0.5,
        "false_positives": 0,
        "false_negatives": 1,
      },
    )

  def test_all_files_are_read_before_one_is_run(self):
    good = self.create_tempfile("good.py", "print(1)").full_path
    pairs = '{"gold": "1", "predicted": "1"}\n'
    pairs = self.create_tempfile("good.jsonl", pairs).full_path
    for name, content, said in (
      ("a.py", b"\xff", "a.py: .utf-8. codec can't decode byte 0xff"),
      ("a.jsonl", b"\xff", "a.jsonl: .utf-8. codec can't decode byte 0xff"),
      ("none.py", b" \n# %% a\n", "none.py has no steps: give a solution"),
    ):
      bad = self.create_tempfile(name, content, mode="wb").full_path
      with (
        mock.patch.object(program, "Sandbox") as sandbox,
        mock.patch.object(program, "Grader") as grader,
        self.assertRaisesRegex(
          SystemExit, f"^rstar_jax.tools.verify: .*{said}"
        ),
      ):
        program.main([good, pairs, bad])
      sandbox.assert_not_called()
      grader.assert_not_called()

  def test_refuses(self):
    path = self.create_tempfile("pairs.jsonl", "{}").full_path
    with self.assertRaisesRegex(SystemExit, 'line 1: "gold" must be'):
      program.main([path])
    with self.assertRaisesRegex(SystemExit, "No such file"):
      program.main([path + ".jsonl"])
    with mock.patch.object(pool.process, "Process", side_effect=OSError("x")):
      with self.assertRaisesRegex(SystemExit, "rstar_jax.tools.verify: x"):
        program.main([self.create_tempfile("a.py", "1").full_path])

  def test_seconds_are_above_0(self):
    steps = self.create_tempfile("steps.py", "1").full_path
    for text in ("nan", "inf", "0", "-1"):
      said = io.StringIO()
      with (
        mock.patch.object(program, "Sandbox") as sandbox,
        self.assertRaises(SystemExit),
        contextlib.redirect_stderr(said),
      ):
        program.main([steps, f"--seconds={text}"])
      self.assertIn("--seconds must be a number above 0", said.getvalue())
      sandbox.assert_not_called()


if __name__ == "__main__":
  absltest.main()
