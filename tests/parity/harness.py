"""A run in the real lm-evaluation-harness: what `make harness` runs.

The base model answers problems of the generator, by a task of the harness's own
form; its score is compared with our grading of the same answers.
"""

import json
import pathlib

import lm_eval
from absl.testing import absltest
from lm_eval.tasks import TaskManager

from configs import tiny
from rstar_jax.data.synthetic import generator
from rstar_jax.grading.grader import Grader
from rstar_jax.pipeline import context as session
from rstar_jax.pipeline import solve
from rstar_jax.tools import harness

TASK = """
task: words
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
output_type: generate_until
test_split: test
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["Q:"]}}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
filter_list:
  - name: strict-match
    filter:
      - function: regex
        regex_pattern: "#### (.*)"
      - function: take_first
"""
COUNT = 23


class HarnessTest(absltest.TestCase):
  def test_its_score_is_ours(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    problems = generator.problems(split="test", count=COUNT, seed=0)
    file = folder / "words.jsonl"
    file.write_text(
      "".join(
        json.dumps({"question": each.question, "answer": each.answer}) + "\n"
        for each in problems
      )
    )
    (folder / "words.yaml").write_text(TASK.format(file=file))
    model = harness.define_model()(tiny.__file__, str(folder / "run"), 0)
    found = lm_eval.simple_evaluate(
      model,
      tasks=["words"],
      task_manager=TaskManager(include_path=str(folder)),
    )
    score = found["results"]["words"]["exact_match,strict-match"]
    with (
      session.open_context(tiny.get_config(), folder / "ours") as context,
      Grader() as grader,
    ):
      solutions = solve.solve_all(
        context, 0, [each.question for each in problems]
      )
      verdicts = grader.grade(
        [
          (problem.answer, solution.answer)
          for problem, solution in zip(problems, solutions, strict=True)
          if solution is not None
        ]
      )
    print(f"harness {score:.3f}, of {COUNT} problems")
    self.assertAlmostEqual(score, verdicts.count("equal") / COUNT)
    self.assertGreater(score, 0)


if __name__ == "__main__":
  absltest.main()
