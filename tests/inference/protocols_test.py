"""Requests in token ids, and answers as vLLM and SGLang write them."""

import dataclasses
import json
import random

import numpy as np
from absl.testing import absltest, parameterized

from rstar_jax import outside
from rstar_jax.config.schema import EngineConfig, ServersConfig
from rstar_jax.inference import protocols
from rstar_jax.inference.protocols import OpenAi, Reading, SampleRequest, SgLang
from tests.fuzz import hostile

ENGINE = EngineConfig(temperature=0.7, top_p=0.9, top_k=40, min_p=0.05)
ASKED = SampleRequest([4, 5], seed=9, max_tokens=3, stop_ids=(7, 2))
# What vLLM answers, without what is not read; and SGLang, as the encoder of its
# version 0.5.23 (`sglang.api.v1`) writes it.
OPENAI = {
  "object": "text_completion",
  "choices": [
    {
      "index": 0,
      "text": " so",
      "logprobs": {"token_logprobs": [-0.5, -1.25], "tokens": [" so", ""]},
      "finish_reason": "stop",
      "stop_reason": 7,
      "token_ids": [11, 7],
    }
  ],
  "usage": {"completion_tokens": 2},
}
SGLANG = {
  "text": " so",
  "meta_info": {
    "id": "6c0a",
    "prompt_tokens": 2,
    "completion_tokens": 2,
    "finish_reason": {"type": "stop", "matched": 7},
    "output_token_logprobs": [[-0.5, 11, None], [-1.25, 7, None]],
    "e2e_latency": 0.25,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
    "output_token_logprobs_length": 2,
    "weight_version": "default",
  },
  "output_ids": [11, 7],
}


def replaced(answer, path, value):
  """Returns a copy with another value at a path of names; `...` drops it."""
  answer = json.loads(json.dumps(answer))
  *first, last = path
  part = answer
  for name in first:
    part = part[name]
  if value is ...:
    del part[last]
  else:
    part[last] = value
  return answer


class RequestsTest(parameterized.TestCase):
  def test_openai(self):
    body = json.loads(OpenAi("its name").sampling_request(ASKED, ENGINE))
    self.assertEqual(
      body,
      {
        **{"model": "its name", "prompt": [4, 5], "seed": 9, "max_tokens": 3},
        **{"stop_token_ids": [2, 7], "ignore_eos": True, "logprobs": 0},
        **{"return_token_ids": True, "skip_special_tokens": False},
        **{"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05},
        **{"repetition_penalty": 1.0, "frequency_penalty": 0.0},
        "presence_penalty": 0.0,
      },
    )
    body = json.loads(OpenAi().scoring_request([[1, 2], [3]]))
    expected = {"input": [[1, 2], [3]], "task": "classify"}
    self.assertEqual(body, expected | {"use_activation": False})

  def test_sglang(self):
    for seeds in (True, False):
      body = json.loads(SgLang(seeds).sampling_request(ASKED, ENGINE))
      fields = body.pop("sampling_params")
      self.assertEqual(body, {"input_ids": [4, 5], "return_logprob": True})
      self.assertEqual(fields.pop("sampling_seed", None), 9 if seeds else None)
      self.assertEqual(
        fields,
        {
          **{"max_new_tokens": 3, "stop_token_ids": [2, 7]},
          **{"skip_special_tokens": False, "temperature": 0.7},
          **{"top_p": 0.9, "top_k": 40, "min_p": 0.05},
        },
      )
    body = json.loads(SgLang().scoring_request([[1, 2], [3]]))
    self.assertEqual(body, {"input_ids": [[1, 2], [3]]})

  @parameterized.parameters(
    (EngineConfig(temperature=1.5), False, {"temperature": 1.5}),
    # Greedy: nothing else restricts it.
    (dataclasses.replace(ENGINE, temperature=0.0), False, {"temperature": 0.0}),
    (ENGINE, True, {"temperature": 0.7, "top_k": 1}),
  )
  def test_nothing_is_left_to_the_model_s_folder(self, engine, only, said):
    # As a folder has it in generation_config.json; vLLM takes from there what
    # a request leaves out or has as null.
    defaults = {
      **{"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1},
      **{"repetition_penalty": 1.05, "frequency_penalty": 0.1},
      "presence_penalty": 0.1,
    }
    none = {
      **{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0},
      **{"repetition_penalty": 1.0, "frequency_penalty": 0.0},
      "presence_penalty": 0.0,
    }
    asked = dataclasses.replace(ASKED, likeliest=only)
    body = json.loads(OpenAi().sampling_request(asked, engine))
    found = {name: body.get(name, defaults[name]) for name in defaults}
    self.assertEqual(found, none | said)
    for name in ("stop", "model"):
      self.assertNotIn(name, body)

  def test_what_sglang_does_not_restrict_is_not_said(self):
    # It reads no generation_config.json for these requests.
    asked = SgLang().sampling_request(ASKED, EngineConfig(temperature=1.5))
    fields = json.loads(asked)["sampling_params"]
    self.assertEqual((fields["temperature"], fields["top_p"]), (1.5, 1.0))
    for name in ("top_k", "min_p", "stop"):
      self.assertNotIn(name, fields)

  def test_the_likeliest_token_keeps_the_temperature(self):
    asked = dataclasses.replace(ASKED, likeliest=True)
    body = json.loads(OpenAi().sampling_request(asked, ENGINE))
    self.assertEqual((body["temperature"], body["top_k"]), (0.7, 1))
    # SGLang's log-probabilities of `top_k=1` are always at temperature 1.
    fields = json.loads(SgLang().sampling_request(asked, ENGINE))[
      "sampling_params"
    ]
    self.assertEqual((fields["temperature"], fields["top_p"]), (0.7, 1e-6))
    self.assertNotIn("top_k", fields)

  def test_texts_that_end_a_step(self):
    asked = dataclasses.replace(ASKED, stop_texts=("<end>",))
    body = json.loads(OpenAi().sampling_request(asked, ENGINE))
    self.assertEqual(body["stop"], ["<end>"])
    body = json.loads(SgLang().sampling_request(asked, ENGINE))
    self.assertEqual(body["sampling_params"]["stop"], ["<end>"])

  def test_equal_requests_are_equal_bytes(self):
    again = dataclasses.replace(ASKED, stop_ids=(2, 7))
    for protocol in (OpenAi(), SgLang()):
      self.assertEqual(
        protocol.sampling_request(ASKED, ENGINE),
        protocol.sampling_request(again, ENGINE),
      )

  @parameterized.parameters("http://a:1/v1", "http://a:1")
  def test_where(self, base):
    protocol = protocols.protocol_of(ServersConfig(protocol="sglang"))
    self.assertEqual(protocol.sampling_url(base), "http://a:1/generate")
    self.assertEqual(protocol.scoring_url(base), "http://a:1/classify")
    protocol = protocols.protocol_of(ServersConfig())
    self.assertEqual(protocol.sampling_url(base), f"{base}/completions")
    self.assertEqual(protocol.scoring_url(base), "http://a:1/pooling")


TOKENS = ("choices", 0, "token_ids")
LOGPROBS = ("choices", 0, "logprobs")
META = ("meta_info", "output_token_logprobs")


class AnswersTest(parameterized.TestCase):
  @parameterized.parameters((OpenAi(), OPENAI), (SgLang(), SGLANG))
  def test_a_sample(self, protocol, answer):
    self.assertEqual(protocol.read_sample(answer, 2), ((11, 7), (-0.5, -1.25)))
    with self.assertRaisesRegex(outside.Bad, "2 tokens .*want 1 to 1"):
      protocol.read_sample(answer, 1)

  @parameterized.parameters(
    (TOKENS, ..., "has no token_ids: the server has to know return_token_ids"),
    (TOKENS, None, "has no token_ids"),
    (TOKENS, "11", 'has "11" as token_ids'),
    (TOKENS, [11, -1], "has -1 as id of a token"),
    (TOKENS, [11, 1 << 40], "as id of a token"),
    (TOKENS, [11, 7.0], "has 7.0 in token_ids"),
    (TOKENS, [11], "has 1 tokens and 2 log-probabilities"),
    (LOGPROBS, None, "has no log-probabilities"),
    (LOGPROBS, {}, "has no log-probabilities"),
    (LOGPROBS, {"token_logprobs": [-0.5, None]}, "has null as log-prob"),
    (LOGPROBS, {"token_logprobs": [-0.5, 1e300]}, "as log-probability"),
    (("choices",), [], "is without choices"),
    (("choices",), [1], "has 1 in choices"),
    (("choices",), OPENAI["choices"] * 2, "has 2 choices, want 1"),
  )
  def test_no_sample_of_openai(self, path, value, words):
    with self.assertRaisesRegex(outside.Bad, words):
      OpenAi().read_sample(replaced(OPENAI, path, value), 9)

  @parameterized.parameters(
    (META, ..., "is it an SGLang server"),
    (META, [], "has 0 tokens"),
    (META, [[-0.5]], "has a token without an id"),
    (META, [-0.5], "has -0.5 in output_token_logprobs"),
    (META, [[None, 11, None]], "has null as log-probability"),
    (META, [[-1, "11", None]], 'has "11" in token_ids'),
    (("meta_info",), 3, "is it an SGLang server"),
  )
  def test_no_sample_of_sglang(self, path, value, words):
    with self.assertRaisesRegex(outside.Bad, words):
      SgLang().read_sample(replaced(SGLANG, path, value), 9)

  def test_values(self):
    for one, other in ((0, 0), (1, 1), (1, 2), (0, None)):
      data = [{"index": one, "data": [0.5]}, {"index": other, "data": [-3]}]
      with self.assertRaisesRegex(outside.Bad, "index"):
        OpenAi().read_values({"data": data}, 2)
    data = [{"index": 1, "data": [0.5]}, {"index": 0, "data": [-3]}]
    self.assertEqual(OpenAi().read_values({"data": data}, 2), [-3.0, 0.5])
    rows = [{"embedding": [-3.0]}, {"embedding": [0.5]}]
    self.assertEqual(SgLang().read_values(rows, 2), [-3.0, 0.5])

  @parameterized.parameters(
    ([[0.5]], "has 1 values of 2 paths"),
    ([[0.5, 0.1], [0.2, 0.1]], "2 numbers for a path, want 1"),
    ([[[0.5]], [[0.2]]], "has a list as value"),
    (["a", "b"], 'has "a" as values, want a list'),
    ([[None], [1]], "has null as value"),
    ([[True], [1]], "has true as value"),
    ([[1e9], [1]], "as value, want a number"),
  )
  def test_no_values(self, rows, words):
    data = [{"index": n, "data": row} for n, row in enumerate(rows)]
    with self.assertRaisesRegex(outside.Bad, words):
      OpenAi().read_values({"data": data}, 2)
    with self.assertRaisesRegex(outside.Bad, words):
      SgLang().read_values([{"embedding": row} for row in rows], 2)

  def test_values_of_two_classes(self):
    pair = Reading("classify", (1, 0))
    data = [{"index": 0, "data": [0.5, 3]}, {"index": 1, "data": [-3]}]
    # One number for a pair is the difference already.
    self.assertEqual(OpenAi().read_values({"data": data}, 2, pair), [2.5, -3])
    each = Reading("token_classify", (0, 1))
    data = [{"index": 0, "data": [[7, 8], [0.5, 3]]}]
    self.assertEqual(OpenAi().read_values({"data": data}, 1, each), [-2.5])
    for rows in ([], [[]], [[1, 2, 3]], [[1, None]], [1, 2]):
      with self.assertRaises(outside.Bad):
        OpenAi().read_values({"data": [{"index": 0, "data": rows}]}, 1, each)
    with self.assertRaisesRegex(outside.Bad, "3 numbers for a path, want 2"):
      OpenAi().read_values({"data": [{"index": 0, "data": [1, 2, 3]}]}, 1, pair)

  def test_values_of_two_answers(self):
    asked = Reading("answers", (11, 13))
    body = json.loads(OpenAi("m").scoring_request([[1, 2], [3]], asked))
    self.assertEqual(
      body,
      {
        **{"model": "m", "prompt": [[1, 2], [3]], "max_tokens": 1},
        **{"temperature": 0.0, "logprobs": 1, "logprob_token_ids": [11, 13]},
        "return_tokens_as_token_ids": True,
      },
    )
    body = json.loads(SgLang().scoring_request([[1, 2], [3]], asked))
    self.assertEqual(
      body,
      {
        **{"input_ids": [[1, 2], [3]], "return_logprob": True},
        "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
        "token_ids_logprob": [[11, 13]] * 2,
      },
    )
    for base, url in (("a/v1", "a/v1/completions"), ("a", "a/completions")):
      self.assertEqual(OpenAi().scoring_url(base, asked), url)
    self.assertEqual(SgLang().scoring_url("a/v1", asked), "a/generate")
    for tops in (None, [], [None], [{"token_id:11": -1}], [{" +": -1}]):
      choices = [{"index": 0, "logprobs": {"top_logprobs": tops}}]
      with self.assertRaisesRegex(outside.Bad, "has no (top|log-prob)"):
        OpenAi().read_values({"choices": choices}, 1, asked)
    for rows in (None, [], [None], [[[-1, 11, None]]], [[[-1]]], [[3]]):
      meta = {"meta_info": {"output_token_ids_logprobs": rows}}
      with self.assertRaises(outside.Bad):
        SgLang().read_values([meta], 1, asked)

  def test_other_documents(self):
    for answer in (None, 3, "x", [], {}, {"data": 3}, {"data": ["x"]}):
      for protocol in (OpenAi(), SgLang()):
        with self.assertRaises(outside.Bad):
          protocol.read_values(answer, 1)
        with self.assertRaises(outside.Bad):
          protocol.read_sample(answer, 1)

  def test_hostile_documents_of_reward_models(self):
    tops = {"top_logprobs": [{"token_id:1": -1.0, "token_id:2": -2.0}]}
    lists = {"output_token_ids_logprobs": [[[-1.0, 1, None], [-2.0, 2, None]]]}
    answers = Reading("answers", (1, 2))
    used = 0
    for seed in range(300):
      source = random.Random(seed)
      for protocol, reading, sample in (
        (OpenAi(), answers, {"choices": [{"index": 0, "logprobs": tops}]}),
        (SgLang(), answers, [{"meta_info": lists}]),
        (
          OpenAi(),
          Reading("token_classify", (1, 0)),
          {"data": [{"index": 0, "data": [[0.5, 1.5], [1.0, 2.0]]}]},
        ),
      ):
        try:
          answer = outside.parse(hostile.document(source, sample))
          (value,) = protocol.read_values(answer, 1, reading)
          self.assertTrue(np.isfinite(value))
          used += 1
        except outside.Bad as error:
          self.assertNotIn("\n", str(error))
    self.assertBetween(used, 50, 850)

  def test_hostile_documents(self):
    """Whatever comes is refused, or is what it should be."""
    values = {"data": [{"index": 0, "data": [0.5]}]}
    rows = [{"embedding": [0.5]}]
    used = 0
    for seed in range(600):
      source = random.Random(seed)
      for protocol, sample, scored in (
        (OpenAi(), OPENAI, values),
        (SgLang(), SGLANG, rows),
      ):
        try:
          answer = outside.parse(hostile.document(source, sample))
          ids, logprobs = protocol.read_sample(answer, 9)
          self.assertLen(ids, len(logprobs))
          self.assertBetween(len(ids), 1, 9)
          self.assertTrue(all(type(each) is int for each in ids))
          self.assertTrue(np.isfinite(logprobs).all())
          used += 1
        except outside.Bad as error:
          self.assertNotIn("\n", str(error))
        try:
          answer = outside.parse(hostile.document(source, scored))
          (value,) = protocol.read_values(answer, 1)
          self.assertTrue(np.isfinite(value))
        except outside.Bad as error:
          self.assertNotIn("\n", str(error))
    self.assertBetween(used, 50, 1150)


if __name__ == "__main__":
  absltest.main()
