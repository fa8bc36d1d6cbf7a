r"""Tests of rstar_jax.data.shapes: rows in the formats of public data sets."""

from absl.testing import absltest, parameterized

from rstar_jax.config.schema import DataConfig
from rstar_jax.data import shapes
from rstar_jax.data.rows import Number, ProblemError, Row
from rstar_jax.types import Problem

BOXED = "Adding, $x = \\boxed{1}$, so the sum is $\\boxed{\\frac{1}{2}}$."


def read(value, **config) -> Problem:
  return shapes.problem_of(Row("f:1", 4, value), "set", DataConfig(**config))


class ShapesTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (
      "gsm8k",
      {"question": "Q", "answer": "5 + 5 = <<5+5=10>>10\n#### 1,010"},
      Problem("set/4", "Q", "1010", "set"),
    ),
    (
      "paper_s_test_sets",
      {"index": Number("12"), "question": "Q", "answer": "(1, 2)"},
      Problem("set/12", "Q", "(1, 2)", "set"),
    ),
    (
      "math",
      {"problem": "Q", "level": "Level 5", "type": "A", "solution": BOXED},
      Problem("set/4", "Q", "\\frac{1}{2}", "set", 5),
    ),
    (
      "math_500",
      {
        "problem": "Q",
        "solution": BOXED,
        "answer": "0.5",
        "subject": "A",
        "level": Number("2"),
        "unique_id": "test/a.json",
      },
      Problem("set/4", "Q", "0.5", "set", 2),
    ),
    (
      "numina",
      {"source": "olympiads", "problem": "Q", "solution": BOXED, "messages": 7},
      Problem("set/4", "Q", "\\frac{1}{2}", "olympiads"),
    ),
    (
      "meta_math",
      {
        "type": "GSM_Rephrased",
        "query": "Q",
        "original_question": "O",
        "response": "It is 6 * 7.\n#### 42\nThe answer is: 42",
      },
      Problem("set/4", "Q", "42", "set"),
    ),
    (
      "released_solutions",
      {"query": "Q", "response": "<answer>\\boxed{3}<end_of_answer>"},
      Problem("set/4", "Q", "3", "set"),
    ),
    (
      "open_r1_math",
      {
        "problem": "Q",
        "solution": BOXED,
        "answer": "\\frac{1}{2}",
        "problem_type": "Algebra",
        "source": "olympiads",
        "uuid": "5c2",
        "generations": ["so $\\boxed{7}$"],
        "messages": [{"role": "user", "content": "Q, step by step"}],
      },
      Problem("set/4", "Q", "\\frac{1}{2}", "olympiads"),
    ),
    (
      "big_math",
      {
        "problem": "Q",
        "answer": "6",
        "source": "orca_math",
        "domain": ["Mathematics -> Algebra"],
        "llama8b_solve_rate": Number("0.9"),
      },
      Problem("set/4", "Q", "6", "orca_math"),
    ),
    (
      "open_math_instruct_2",
      {
        "problem": "Q",
        "generated_solution": "so $\\boxed{8}$",
        "expected_answer": "8.5",
        "problem_source": "augmented_math",
      },
      Problem("set/4", "Q", "8.5", "set"),
    ),
    (
      "open_math_instruct_1",
      {
        "question": "Q",
        "expected_answer": "9",
        "predicted_answer": "8",
        "is_correct": False,
      },
      Problem("set/4", "Q", "9", "set"),
    ),
    (
      "math_instruct",
      {"source": "cot", "instruction": "Q", "output": "The answer is: 4"},
      Problem("set/4", "Q", "4", "cot"),
    ),
    (
      "aime_with_capitals",
      {"ID": "2024-I-1", "Problem": "Q", "Solution": BOXED, "Answer": "204"},
      Problem("set/4", "Q", "204", "set"),
    ),
    (
      "dapo_processed",
      {
        "prompt": "Q",
        "solution": "34",
        "data_source": "math_dapo",
        "reward_model": {"ground_truth": "34", "style": "rule"},
        "extra_info": {"index": "9a9b"},
      },
      Problem("set/9a9b", "Q", "34", "math_dapo"),
    ),
    (
      "trl_rewards",
      {"prompt": [{"role": "user", "content": "Q"}], "solution": "$\\frac12$"},
      Problem("set/4", "Q", "$\\frac12$", "set"),
    ),
    (
      "trl_sft",
      {"prompt": "Q", "completion": "so\n#### 6"},
      Problem("set/4", "Q", "6", "set"),
    ),
    (
      "open_instruct",
      {
        "messages": [{"role": "user", "content": "Q"}],
        "ground_truth": "7",
        "dataset": "math",
      },
      Problem("set/4", "Q", "7", "set"),
    ),
  )
  def test_a_row_of_each(self, row, expected):
    self.assertEqual(read(row), expected)

  def test_a_whole_solution_is_no_answer(self):
    solution = (
      "Let us denote the smaller number by x and the larger one by y, so that "
      "we have y = 2 x. The sum of both of them is 27, and thus 3 x = 27. If "
      "we now divide both sides of it by 3, we get x = 9. So the smaller is 9."
    )
    row = {"question": "Q", "answer": solution}
    with self.assertRaisesRegex(ProblemError, "set answer_pattern='") as e:
      read(row)
    pattern = (
      str(e.exception).split("answer_pattern='")[1].split("' to take")[0]
    )
    self.assertEqual(read(row, answer_pattern=pattern).answer, "9.")
    boxed = row | {"answer": f"{solution}\n$\\boxed{{9}}$"}
    self.assertEqual(read(boxed).answer, "9")
    self.assertEqual(read(row, answer_pattern="(?s).+").answer, solution)
    # A reward judges it in its own way.
    kept = shapes.problem_of(Row("f:1", 4, row), "set", DataConfig(), False)
    self.assertEqual(kept.answer, solution)

  def test_fields_within_others(self):
    row = {"extra_info": {"question": "Q", "n": {"gold": "7"}}, "prompt": "P"}
    names = {"question_field": "{prompt}: {extra_info.question}"}
    found = read(row, **names, answer_field="extra_info.n.gold")
    self.assertEqual((found.question, found.answer), ("P: Q", "7"))
    with self.assertRaisesRegex(
      ProblemError, "no field 'extra_info.m', only e"
    ):
      read(row, **names, answer_field="extra_info.m")

  def test_several_right_answers(self):
    row = {"index": "1", "question": "Q", "answer": ["3", "-3"]}
    self.assertEqual(
      read(row), Problem("set/1", "Q", "3", "set", alternatives=("-3",))
    )
    row = {"question": "Q", "answer": "3", "also": ["-3", "|3|"]}
    self.assertEqual(
      read(row), Problem("set/4", "Q", "3", "set", alternatives=("-3", "|3|"))
    )

  def test_an_answer_of_several_parts(self):
    row = {"question": "Q", "final_answer": ["$1$", "$2$"], "id": "7"}
    self.assertEqual(read(row), Problem("7", "Q", "$1$, $2$", "set"))

  @parameterized.parameters(
    ({"problem": "Q", "solution": "It follows."}, "no final answer"),
    ({"index": "1", "question": "Q", "answer": []}, "no final answer"),
    ({"question": "Q", "final_answer": None}, "no final answer"),
    ({"question": "Q", "final_answer": []}, "no final answer"),
    ({"problem": "Q", "solution": "so $\\boxed{}$"}, "no final answer"),
    ({"problem": "Q", "solution": "so $\\boxed{7"}, "no final answer"),
    ({"problem": "Q", "solution": ""}, "no final answer"),
    ({"problem": "Q", "solution": "\\boxed{a\n\nb}"}, "several paragraphs"),
    ({"problem": "Q", "answer": "proof", "solution": BOXED}, "no final answer"),
    ({"problem": "Q", "answer": None, "solution": BOXED}, "no final answer"),
    ({"query": "Q", "response": "The answer is: "}, "no final answer"),
    ({"index": "1", "question": "Q", "answer": ""}, "no final answer"),
  )
  def test_what_cannot_be_graded(self, row, reason):
    with self.assertRaisesRegex(shapes.Ungraded, reason):
      read(row)

  @parameterized.parameters(
    ({"question": "Q", "answer": ""}, "'answer' is empty"),
    ({"question": "Q", "answer": ["1"]}, "'answer' is a list"),
    ({"question": "Q", "answer": "1", "also": "23"}, "'also' is text, want a"),
    ({"question": "Q", "answer": "1", "also": ["2", None]}, "'also' is null"),
    ({"question": "Q"}, "has no field 'answer', only question"),
    ({"text": "Q"}, "has no field 'question', only text"),
    ({"problem": "", "solution": BOXED}, "'problem' is empty"),
    ({"problem": "Q", "solution": {}}, "no final answer"),
    ({"query": "Q", "response": 7}, "'response' is of type int"),
  )
  def test_wrong_rows(self, row, reason):
    with self.assertRaisesRegex((ProblemError, shapes.Ungraded), reason):
      read(row)

  def test_null_is_no_id(self):
    row = {"id": None, "question": "Q", "answer": "1"}
    self.assertEqual(read(row), Problem("set/4", "Q", "1", "set"))

  def test_named_fields_win(self):
    row = {"problem": "P", "solution": BOXED, "query": "Q", "result": "so?"}
    named = read(row, question_field="query", answer_field="result")
    self.assertEqual((named.question, named.answer), ("Q", "so?"))
    half = read(row | {"answer": "7"}, question_field="query")
    self.assertEqual((half.question, half.answer), ("Q", "7"))
    with self.assertRaisesRegex(ProblemError, "no field 'nothing'"):
      read(row, question_field="nothing", answer_field="result")

  def test_a_template_of_fields(self):
    row = {
      "body": "Ann has 3 pens.",
      "question": "How many?",
      "options": ["3", "4"],
      "note": None,
      "answer": "3",
    }
    template = "{note} {body} {question} ({options})"
    found = read(row, question_field=template).question
    self.assertEqual(found, "Ann has 3 pens. How many? (3, 4)")
    with self.assertRaisesRegex(ProblemError, "no field 'bdy', only answer, b"):
      read(row, question_field="{bdy} {question}")
    with self.assertRaisesRegex(ProblemError, "'note', 'a' are empty"):
      read(row | {"a": ""}, question_field="{note}{a}")

  @parameterized.parameters(
    ("9 (apples)", r"(.+?) *\(", "9"),
    ("9 (apples)", r".+", "9 (apples)"),
    ("The total is $42.", r"\$(\d+)|none", "42"),
    ("A) 7", r"[A-E](?=\))", "A"),
  )
  def test_an_answer_by_pattern(self, text, pattern, answer):
    row = {"question": "Q", "answer": text}
    self.assertEqual(read(row, answer_pattern=pattern).answer, answer)
    row = {"q": "Q", "a": text}
    named = {"question_field": "q", "answer_field": "a"}
    self.assertEqual(read(row, answer_pattern=pattern, **named).answer, answer)
    with self.assertRaisesRegex(ProblemError, "'zz' matches nothing of 'a'"):
      read(row, answer_pattern="zz", **named)
    for nothing in (r"\d*", r"(\s*)\w*", "()|(.+)"):
      with self.assertRaisesRegex(ProblemError, "matches nothing of 'a': 'so'"):
        read(row | {"a": "so"}, answer_pattern=nothing, **named)
    with self.assertRaisesRegex(ProblemError, "is no regular expression"):
      read(row, answer_pattern="(", **named)

  @parameterized.parameters(
    ({"body": "Ann has 3."}, r"question_field='\{body\} \{question\}'"),
    ({"Context": "Ann."}, r"question_field='\{Context\} \{question\}'"),
    ({"options": ["A", "B"]}, r"question_field='question' if"),
    ({"Input": "3"}, r"question_field='\{Input\} \{question\}'"),
    (
      {"options": {"A": "O2", "B": "N2"}, "answer": "B"},
      r"'\{options.A\} \{options.B\} \{question\}'",
    ),
    ({"choices": {"text": ["O2"], "label": None}}, r"'\{choices.text\} \{que"),
    ({"answer": "9 (apples)"}, r"set answer_pattern='\(\.\+\?\) \*\\\\?\('"),
    ({"answer": "4:5 (km)"}, "says 4:5 would not equal"),
    ({"final_answer": "8"}, "another in 'final_answer': set answer_field="),
    ({"expected_answer": "7 apples"}, "answer_field='expected_answer'"),
  )
  def test_what_would_be_misread_is_refused(self, fields, reason):
    with self.assertRaisesRegex(ProblemError, reason):
      read({"question": "Q", "answer": "7"} | fields)

  @parameterized.parameters(
    {"body": ""},
    {"context": None},
    {"options": {}},
    {"options": {"A": None, "B": None}},
    {"final_answer": "7"},
    {"final_answer": "so it is\n#### 7"},
    {"answer": "7", "solution": "\\boxed{8}"},
    {"answer": "(1, 2)"},
    {"answer": "2(x+1)"},
    {"answer": "3 (4)"},
  )
  def test_what_is_read_rightly_is_not(self, **fields):
    row = {"question": "Q", "answer": "7"} | fields
    self.assertEqual(read(row).answer, row["answer"])

  @parameterized.parameters(
    ("7", "7"),
    ("3 + 4 = 7\n#### 7", "7"),
    ("#### -$1,234,567.5", "-$1234567.5"),
    ("#### 1, 2", "1, 2"),
    ("#### 1,2,3", "1,2,3"),
    ("#### 1,234, 567", "1234, 567"),
    ("#### 1234,567", "1234,567"),
    ("#### 12,3456", "12,3456"),
    ("#### (1,200)", "(1,200)"),
    ("It is $\\boxed{7}$.", "7"),
    ("3 + 4.\nThe answer is: 7", "7"),
  )
  def test_a_chat(self, reply, answer):
    messages = [
      {"role": "system", "content": "Be kind."},
      {"role": "user", "content": "What is 3 + 4?"},
      {"role": "assistant", "content": reply},
    ]
    found = read({"messages": messages})
    self.assertEqual((found.question, found.answer), ("What is 3 + 4?", answer))
    with self.assertRaisesRegex(ProblemError, "2 of the user"):
      read({"messages": [*messages, messages[1]]})
    with self.assertRaisesRegex(shapes.Ungraded, "no final answer"):
      read({"messages": messages[:2]})
    with self.assertRaisesRegex(ProblemError, "none of the user"):
      read({"messages": messages[2:]})
    with self.assertRaisesRegex(ProblemError, "want objects with role and"):
      read({"messages": ["What is 3 + 4?"]})
    with self.assertRaisesRegex(ProblemError, "none of the user"):
      read({"messages": [{"role": ["user"], "content": "?"}]})

  def test_texts_and_levels_are_bounded(self):
    row = {"question": "Q", "answer": "1"}
    self.assertEqual(read(row | {"level": "9" * 9}).level, 10**9 - 1)
    self.assertIsNone(read(row | {"level": "9" * 10}).level)
    self.assertIsNone(read(row | {"level": "9" * 5000}).level)
    most = 1 << 20
    self.assertLen(read(row | {"question": "x" * most}).question, most)
    for name in row:
      with self.assertRaisesRegex(ProblemError, f"{name}' has 1048577 charac"):
        read(row | {name: "x" * (most + 1)})

  @parameterized.parameters(
    {"question": "Q"},
    {"problem": "Q", "solution": "It is so."},
    {"problem": "Q"},
    {"messages": [{"role": "user", "content": "Q"}]},
    {"index": "4", "question": "Q", "answer": None},
  )
  def test_without_an_answer_where_none_is_needed(self, **row):
    found = shapes.problem_of(Row("f:1", 4, row), "set", DataConfig(), False)
    self.assertEqual(found, Problem("set/4", "Q", None, "set"))

  @parameterized.parameters("gold", "meta.gold")
  def test_an_answer_that_no_pattern_matches_is_not_missing(self, field):
    row = {"question": "Q", "gold": "so", "meta": {"gold": "so"}}
    config = DataConfig(answer_field=field, answer_pattern=r"\d+")
    with self.assertRaisesRegex(ProblemError, "matches nothing"):
      shapes.problem_of(Row("f:1", 4, row), "set", config, False)
    for bare in ({"question": "Q"}, {"question": "Q", "meta": {"gold": None}}):
      found = shapes.problem_of(Row("f:1", 4, bare), "set", config, False)
      self.assertIsNone(found.answer)

  @parameterized.parameters(
    ({"answer": " "}, "whose answer is ' ', want text"),
    ({"alternatives": ("",)}, "whose answer is '', want text"),
    ({"level": "hard"}, "whose level is 'hard', want an int or None"),
    ({"level": 1.5}, "whose level is 1.5"),
    ({"source": None}, "whose source is None, want text"),
  )
  def test_a_problem_of_a_function_is_checked(self, fields, reason):
    made = {"id": "p", "question": "Q", "answer": "1"}
    for answer, needed in (("1", True), (None, False)):
      with self.assertRaisesRegex(ProblemError, reason):
        value = Problem(**made | {"answer": answer} | fields)
        shapes.problem_of(Row("f:1", 4, value), "set", DataConfig(), needed)
    good = Problem(**made, level=3, alternatives=("2",))
    self.assertEqual(read(good), good)

  def test_a_function_with_tests(self):
    row = {
      "task_id": "Some/7",
      "prompt": "def half(x):\n  ...",
      "canonical_solution": "  return x / 2\n",
      "test": "def check(candidate):\n  assert candidate(4) == 2",
      "entry_point": "half",
    }
    found = read(row)
    self.assertEqual(
      (found.id, found.question, found.answer, found.source),
      ("Some/7", "def half(x):\n  ...", None, "set"),
    )
    exec("def half(x): return x / 2\n" + found.tests)
    with self.assertRaises(AssertionError):
      exec("def half(x): return x / 3\n" + found.tests)
    del row["task_id"]
    self.assertEqual(read(row).id, "set/4")
    with self.assertRaisesRegex(ProblemError, "want a function's name"):
      read(row | {"entry_point": "half) or check(len"})
    # Tests are as good as an answer; a problem may be given with some.
    self.assertEqual(read(found), found)
    with self.assertRaisesRegex(ProblemError, "whose answer is None"):
      read(Problem("p", "Q"))

  def test_the_question_alone(self):
    row = {"question": " Q", "answer": "7"}
    self.assertEqual(shapes.question_of(row), "Q")
    self.assertIsNone(shapes.question_of(row | {"body": "B"}))
    self.assertIsNone(shapes.question_of({"q": "Q"}))
    said = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "#### 1"}]
    self.assertEqual(shapes.question_of({"conversations": said}), "Q")

  def test_an_answer_that_a_person_states_is_taken_as_it_is(self):
    words = "it depends on what you mean by that, does it not"
    self.assertEqual(read({"question": "Q", "answer": words}).answer, words)
    with self.assertRaisesRegex(shapes.Ungraded, "prose"):
      read({"problem": "Q", "solution": f"\\boxed{{{words}}}"})


if __name__ == "__main__":
  absltest.main()
