"""What the servers' answers look like, and what is read from them."""

import dataclasses
import math

from absl.testing import absltest, parameterized

from rstar_jax import outside
from rstar_jax.inference.completions_client import candidates
from rstar_jax.steps import grammar
from rstar_jax.types import Candidate
from tests.inference.completions_client_test import SHOWN, STEP


class ShapesTest(parameterized.TestCase):
  """Answers as the servers write them, other fields and all."""

  def test_vllm(self):
    logprobs = {
      "text_offset": [0, 6, 7],
      "token_logprobs": [-0.25, -0.5, -1.0],
      "tokens": ["<code>", "\n", "x"],
      "top_logprobs": [{"<code>": -0.25}, {"\n": -0.5}, {"x": -1.0}],
    }
    answer = {
      "id": "cmpl-1f2e",
      "object": "text_completion",
      "created": 1764000000,
      "model": "m",
      "choices": [
        {
          "index": 1,
          "text": "<code>\nx = 1\nprint(x)\n",
          "logprobs": logprobs,
          "finish_reason": "stop",
          "stop_reason": "<end_of_code>",
          "token_ids": [11, 13, 17],
          "prompt_logprobs": None,
          "prompt_token_ids": [3, 5],
        },
        {
          "index": 0,
          "text": " <code>\nx = 1\n",
          "logprobs": logprobs,
          "finish_reason": "stop",
          "stop_reason": "<end_of_step>",
          "token_ids": None,
          "prompt_logprobs": None,
          "prompt_token_ids": None,
        },
        {
          "index": 2,
          "text": "I cannot.",
          "logprobs": None,
          "finish_reason": "stop",
          "stop_reason": None,
        },
        {
          "index": 3,
          "text": "<code>\nx = 1",
          "logprobs": None,
          "finish_reason": "length",
          "stop_reason": None,
        },
      ],
      "service_tier": None,
      "system_fingerprint": None,
      "usage": {
        "prompt_tokens": 9,
        "total_tokens": 30,
        "completion_tokens": 21,
        "prompt_tokens_details": None,
      },
      "kv_transfer_params": None,
    }
    step, code, end, cut = candidates(answer, ())
    text = "<code>\nx = 1\n<end_of_step>"
    self.assertEqual(step, Candidate(text, (-1, -1, -1), -1.75, "step"))
    text = "<code>\nx = 1\nprint(x)\n<end_of_code>"
    self.assertEqual(code, Candidate(text, (11, 13, 17), -1.75, "code"))
    # 21 tokens are 5 for each choice, and one more for the first.
    self.assertEqual((end.text, end.finish), ("I cannot.", "eos"))
    self.assertEqual(end.token_ids, (-1,) * 5)
    self.assertTrue(math.isnan(end.logprob))
    self.assertEqual((cut.text, cut.finish), ("<code>\nx = 1", "length"))

  @parameterized.parameters(
    ("<end_of_answer>", "<end_of_answer>", "answer"),
    # An id: the model's own end of text.
    (151643, "", "eos"),
  )
  def test_sglang(self, matched, marker, finish):
    text = "<answer>It is \\boxed{4}."
    answer = {
      "id": "8a7b",
      "object": "text_completion",
      "created": 1764000000,
      "model": "m",
      "choices": [
        {
          "index": 0,
          "text": text,
          "logprobs": {
            "text_offset": [],
            "token_logprobs": [-0.5, -0.25],
            "tokens": ["<answer>", "It"],
            "top_logprobs": [],
          },
          "finish_reason": "stop",
          "matched_stop": matched,
        }
      ],
      "usage": {"prompt_tokens": 9, "total_tokens": 11, "completion_tokens": 2},
      "metadata": {"weight_version": "default"},
    }
    self.assertEqual(
      candidates(answer, (STEP, SHOWN)),
      [Candidate(text + marker, (-1, -1), -0.75, finish)],
    )

  @parameterized.parameters(
    ((), "<code>\nx = 4\n", "<end_of_step>", "step"),
    ((STEP,), "\n\n# print it\nx += 3\n", "<end_of_step>", "step"),
    (
      (STEP,),
      "\n\n# Now print the final answer:\nprint(x)\n",
      "<end_of_code>",
      "code",
    ),
    (
      (STEP, SHOWN),
      "<answer>It is \\boxed{4}.",
      "<end_of_answer>",
      "answer",
    ),
  )
  def test_llama_cpp(self, prefix, text, marker, finish):
    token = {"id": 7, "token": "x", "bytes": [120], "logprob": -0.5}
    answer = {
      "choices": [
        {
          "text": text,
          "index": 0,
          "logprobs": {"content": [{**token, "top_logprobs": [token]}] * 3},
          "finish_reason": "stop",
        }
      ],
      "created": 1764000000,
      "model": "m.gguf",
      "system_fingerprint": "b9000-abcdef0",
      "object": "text_completion",
      "usage": {"completion_tokens": 3, "prompt_tokens": 9, "total_tokens": 12},
      "id": "chatcmpl-x",
      "timings": {"prompt_n": 9, "predicted_n": 3},
    }
    expected = Candidate(text + marker, (7, 7, 7), -1.5, finish)
    self.assertEqual(candidates(answer, prefix), [expected])
    self.assertIsNone(grammar.problem_with(prefix, expected.text, finish))

  def test_transformers(self):
    # It leaves the stop string in the text, and what its last token has more.
    answer = {
      "id": "req-0",
      "choices": [
        {
          "finish_reason": "length",
          "index": 0,
          "text": "\n<code>\nx = 4\n<end_of_step>\n",
        }
      ],
      "created": 1764000000,
      "model": "m",
      "object": "text_completion",
      "usage": {"completion_tokens": 3, "prompt_tokens": 9, "total_tokens": 12},
    }
    ((text, ids, _, finish, _),) = map(
      dataclasses.astuple, candidates(answer, ())
    )
    self.assertEqual(text, "<code>\nx = 4\n<end_of_step>")
    self.assertEqual((ids, finish), ((-1, -1, -1), "step"))

  def test_indices(self):
    def texts(*indices):
      choices = [
        {"text": f"{n}", "token_ids": [n]}
        | ({} if at is None else {"index": at})
        for n, at in enumerate(indices)
      ]
      found = candidates({"choices": choices}, ())
      return [each.text for each in found]

    self.assertEqual(texts(2, 0, 1), ["1", "2", "0"])
    # Without any, they are in order.
    self.assertEqual(texts(None, None), ["0", "1"])
    for wrong in ((0, 0), (1, 2), (0, None), (-1, 0)):
      with self.assertRaisesRegex(outside.Bad, "index"):
        texts(*wrong)

  def test_no_number_of_tokens(self):
    answer = {"choices": [{"text": "x", "finish_reason": "stop"}]}
    with self.assertRaisesRegex(ValueError, "no usage.completion_tokens"):
      candidates(answer, ())


if __name__ == "__main__":
  absltest.main()
