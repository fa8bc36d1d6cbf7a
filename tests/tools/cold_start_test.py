"""The cold start: who learns from what, and which solutions are kept."""

import json
import pathlib
import shutil
from unittest import mock

from absl.testing import absltest, parameterized

from rstar_jax.data.rows import ProblemError
from rstar_jax.grading.grader import Grader
from rstar_jax.hf import folders
from rstar_jax.sandbox.pool import Sandbox
from rstar_jax.tools import cold_start


def row(question: str, answer: str) -> dict[str, str]:
  return {"question": question, "answer": answer}


RIGHT = row("What is 1 and 2?", "It is 1+2=<<1+2=3>>3 in all.\n#### 3")


class ColdStartTest(parameterized.TestCase):
  def test_a_problem_has_one_part_wherever_it_stands(self):
    rows = [row(f"What is 1 and {n}?", "") for n in range(2000)]
    parts = cold_start.divide(rows)
    self.assertCountEqual(
      [each["question"] for part in parts.values() for each in part],
      [each["question"] for each in rows],
    )
    again = cold_start.divide(rows[::-1])
    for name, share in (
      ("cold_start", 0.7),
      ("search", 0.2),
      ("validation", 0.1),
    ):
      self.assertCountEqual(parts[name], again[name])
      # Four standard deviations of a share of 2,000.
      self.assertAlmostEqual(len(parts[name]) / 2000, share, delta=0.04)

  def test_a_level_is_the_number_of_notes(self):
    rows = [RIGHT, row("What is 2 and 2?", "It is 4.\n#### 4")]
    parts = cold_start.divide(rows)
    levels = {
      each["question"]: each["level"]
      for part in parts.values()
      for each in part
    }
    self.assertEqual(levels, {"What is 1 and 2?": 1, "What is 2 and 2?": None})

  @parameterized.parameters(
    ('{"question": "How many?"}', "gsm8k.jsonl:2: want GSM8K's fields, quest"),
    ('{"question": "How many?", "answer": [3]}', "gsm8k.jsonl:2: want GSM8K'"),
    ("[1]", "gsm8k.jsonl:2: want GSM8K's"),
    ("{", "gsm8k.jsonl:2: is not JSON"),
    (None, "has no rows"),
  )
  def test_rows_of_another_form(self, line, said):
    path = pathlib.Path(self.create_tempdir().full_path) / "gsm8k.jsonl"
    path.write_text(json.dumps(RIGHT) + "\n")
    self.assertEqual(cold_start.read(str(path)), [RIGHT])
    path.write_text(f"{json.dumps(RIGHT)}\n{line}\n" if line else "")
    with self.assertRaisesRegex(ProblemError, said):
      cold_start.read(str(path))

  def test_a_model_that_is_not_there_is_said_before_programs_run(self):
    folder = self.create_tempdir().full_path
    given = mock.Mock(gsm8k="none.jsonl", policy=f"{folder}/no", output=folder)
    with mock.patch.object(cold_start.flags, "FLAGS", given):
      with self.assertRaisesRegex(ValueError, f"no folder {folder}/no"):
        cold_start.main(["program"])
      with self.assertRaisesRegex(ValueError, "given as --gsm8k=a.jsonl$"):
        cold_start.main(["program", "a.jsonl"])

  @parameterized.parameters(
    ("model_type", "mamba", "model_type='mamba'; known are"),
    # Of a tokenizer that is not Qwen2's, which is saved as a Llama.
    ("num_attention_heads", 5, "loads, but once trained it could not be saved"),
    ("vocab_size", 700, "tokens and the model rows for"),
  )
  def test_a_model_of_no_use_is_said_before_programs_run(
    self, name, value, said
  ):
    folder = pathlib.Path(self.create_tempdir().full_path) / "policy"
    shutil.copytree(folders.BASE_MODEL, folder)
    file = folder / "config.json"
    fields = json.loads(file.read_text())
    # The base model is a Qwen2 that was written as a Llama.
    fields |= {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    fields |= {"num_key_value_heads": 1, "head_dim": 32, name: value}
    file.write_text(json.dumps(fields))
    given = mock.Mock(gsm8k="none.jsonl", policy=str(folder), output=folder)
    with (
      mock.patch.object(cold_start.flags, "FLAGS", given),
      self.assertRaisesRegex(ValueError, said),
    ):
      cold_start.main(["program"])

  def test_nothing_to_learn_from_is_said_before_training(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    rows = [row(f"What is 1 and {n}?", "It is 3.\n#### 3") for n in range(9)]
    lines = "\n".join(map(json.dumps, rows))
    (folder / "plain.jsonl").write_text(lines)
    given = mock.Mock(gsm8k=f"{folder}/plain.jsonl", output=folder / "out")
    given.configure_mock(policy=str(folders.BASE_MODEL), most_steps=0)
    with (
      mock.patch.object(cold_start.flags, "FLAGS", given),
      mock.patch.object(cold_start.own_data, "train_policy") as train,
      self.assertRaisesRegex(ValueError, "no calculator note.*<<1[+]2=3>>3"),
    ):
      cold_start.main(["program"])
    train.assert_not_called()
    self.assertFalse((folder / "out").exists())

  def test_solutions_are_run_and_what_is_left_out_is_counted(self):
    rows = [
      RIGHT,
      row("What is 1 and 2?", "It is 3.\n#### 3"),
      row("What is 1 and 2?", "It is 1+2=<<1+2=3>>3.\n#### 4"),
      # Exactly it is 0, and Python's floats leave -2.8e-17.
      row(
        "What is 1 and 2?",
        "It is 1-.9-.1=<<1-.9-.1=0>>0, so 0*2=<<0*2=0>>0.\n#### 0",
      ),
    ]
    with Sandbox() as sandbox, Grader() as grader:
      kept, left_out = cold_start.rewrite(rows, sandbox, grader)
    self.assertEqual([each["question"] for each in kept], [RIGHT["question"]])
    self.assertIn("<output>3<end_of_output>", kept[0]["steps"][1])
    self.assertEqual(
      left_out,
      {
        "no calculator note": 1,
        "the last result is not the answer": 1,
        "what the code prints is not the answer": 1,
      },
    )

  def test_long_solutions_are_left_out_if_asked(self):
    two = "It is 1+2=<<1+2=3>>3, and 3+2=<<3+2=5>>5 in all.\n#### 5"
    rows = [RIGHT, row("What is 1 and 2 and 2?", two)]
    with Sandbox() as sandbox, Grader() as grader:
      for most, wanted in ((0, 2), (2, 2), (1, 1)):
        kept, left_out = cold_start.rewrite(rows, sandbox, grader, most)
        self.assertLen(kept, wanted)
        self.assertEqual(left_out.total(), 2 - wanted)


if __name__ == "__main__":
  absltest.main()
