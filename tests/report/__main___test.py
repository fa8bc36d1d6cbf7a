"""Tests of the command that writes a report."""

import contextlib
import io
import pathlib

from absl.testing import absltest

from rstar_jax.report import __main__ as command
from tests.report import workdirs


class MainTest(absltest.TestCase):
  def run_main(self, *arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      status = command.main(list(arguments))
    return status, out.getvalue(), err.getvalue()

  def test_names_the_file(self):
    folder = workdirs.write(pathlib.Path(self.create_tempdir().full_path))
    status, out, _ = self.run_main(str(folder))
    self.assertEqual((status, out), (0, f"report: {folder}/report.html\n"))
    whole = (folder / "report.html").stat().st_size
    self.assertEqual(self.run_main(str(folder), "--megabytes=0.000001")[0], 0)
    self.assertLess((folder / "report.html").stat().st_size, whole)

  def test_says_what_is_wrong_in_a_line(self):
    status, out, err = self.run_main("nowhere")
    self.assertEqual((status, out), (1, ""))
    self.assertEqual(
      err,
      "rstar_jax.report: nowhere is not a folder: give the --workdir of a "
      "run\n",
    )

  def test_a_folder_without_a_run_stays_as_it_is(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / "notes.txt").touch()
    status, out, err = self.run_main(str(folder))
    self.assertEqual((status, out), (1, ""))
    self.assertIn("holds no run: give the --workdir of one", err)
    self.assertLen(list(folder.iterdir()), 1)

  def test_megabytes_are_a_number_from_0_on(self):
    folder = workdirs.write(pathlib.Path(self.create_tempdir().full_path))
    for text in ("nan", "inf", "-1"):
      said = io.StringIO()
      with self.assertRaises(SystemExit), contextlib.redirect_stderr(said):
        command.main([str(folder), f"--megabytes={text}"])
      self.assertIn("--megabytes must be a number from 0 on", said.getvalue())
    self.assertFalse((folder / "report.html").exists())
    self.assertEqual(self.run_main(str(folder), "--megabytes=0")[0], 0)


if __name__ == "__main__":
  absltest.main()
