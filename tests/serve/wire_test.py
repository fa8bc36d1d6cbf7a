"""OpenAI's forms: what is read, and what is refused."""

import dataclasses
import json

from absl.testing import absltest, parameterized

from rstar_jax.pipeline.solve import METHODS, Budget
from rstar_jax.serve import wire

QUESTION = "four"
SERVED = wire.Served(
  name="toy",
  methods=("search", "greedy", "majority"),
  usual=Budget(method="search", samples=4, rollouts=2, candidates=4),
  temperature=1.4,
  any_temperature=True,
  top_p=1.0,
  seed=7,
  question_characters=500,
  solutions=64,
)


def read(chat=True, served=SERVED, **fields) -> wire.Request:
  messages = [{"role": "user", "content": QUESTION}]
  body = {"messages": messages} if chat else {}
  return wire.read(json.dumps(body | fields).encode(), served, chat=chat)


# A request that is refused, the field and words of the line.
BAD = (
  ({"method": "guess"}, "method", "is none of search, greedy"),
  ({"method": ""}, "method", "='' is none of"),
  ({"method": []}, "method", "=[] is none of"),
  ({"method": False}, "method", "=False is none of"),
  ({"method": 0, "temperature": 0}, "method", "=0 is none of"),
  ({"rollout": 3}, "rollout", "Unrecognized request argument"),
  ({"tools": [1]}, "tools", "is not supported"),
  ({"n": 0}, None, "has 0 as n, want 1 to 128"),
  ({"n": True}, None, "has true as n"),
  ({"rollouts": 99}, "rollouts", "n x rollouts x candidates is 396; 64"),
  ({"method": "majority", "samples": 65}, "samples", "is 65; 64"),
  ({"temperature": 2.1}, "temperature", "=2.1 is not a number from 0 to 2"),
  ({"temperature": -0.1}, "temperature", "=-0.1 is not a number"),
  ({"temperature": "1"}, "temperature", "='1' is not a number"),
  ({"temperature": True}, "temperature", "=True is not a number"),
  ({"top_p": 0.3}, "top_p", "0.3 is asked for, and 1.0 served"),
  ({"stop": ["a"] * 5}, "stop", "not 1 to 4 texts"),
  ({"stream": 1}, "stream", "neither true nor false"),
  ({"messages": []}, "messages", "not the user's"),
  ({"messages": [{"role": "user", "content": " "}]}, "messages", "is empty"),
  ({"messages": [{"role": "user", "content": 3}]}, None, "want a text"),
  ({"messages": [{"role": "user", "content": "x" * 501}]}, "messages", "501"),
  ({"messages": "four"}, None, "want a list"),
  ({"seed": 2**63}, None, "a number of 19 digits, beyond 64 bits"),
  ({"seed": 1.5}, None, "has 1.5 as seed"),
)


class ReadTest(parameterized.TestCase):
  @parameterized.parameters(*BAD)
  def test_a_field_that_is_refused(self, wrong, param, words):
    with self.assertRaises(wire.Refused) as caught:
      read(**wrong)
    error = caught.exception.body["error"]
    self.assertEqual(caught.exception.status, 400)
    self.assertEqual(error["type"], "invalid_request_error")
    self.assertEqual(error["param"], param)
    self.assertIn(words, error["message"])
    self.assertNotIn("\n", error["message"])

  def test_a_request_that_says_nothing_else(self):
    found = read()
    self.assertEqual(found.question, QUESTION)
    self.assertEqual(found.budget, SERVED.usual)
    self.assertEqual((found.seed, found.choices, found.limit), (7, 1, None))
    self.assertFalse(found.stream or found.usage or found.tree)
    self.assertEqual(read(chat=False, prompt=["a"]).question, "a")

  def test_the_outermost_seeds(self):
    for seed in (-(2**63), 2**63 - 1):
      self.assertEqual(read(seed=seed).seed, seed)

  def test_what_asks_for_nothing_is_let_be(self):
    parts = [{"type": "text", "text": "fo"}, {"type": "text", "text": "ur"}]
    messages = [
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": parts},
    ]
    nothing = {"user": "me", "tools": [], "logprobs": False, "top_p": None}
    nothing |= {"response_format": {"type": "text"}, "presence_penalty": 0.0}
    self.assertEqual(read(messages=messages, **nothing).question, "fo\nur")

  def test_a_field_goes_before_the_name_and_the_temperature(self):
    for fields, method in (
      ({}, "search"),
      ({"temperature": 0}, "greedy"),
      ({"temperature": 1.4}, "search"),
      ({"model": "toy:majority"}, "majority"),
      ({"model": "toy:majority", "method": "search"}, "search"),
      ({"method": "greedy", "temperature": 0.3}, "greedy"),
    ):
      self.assertEqual(read(**fields).budget.method, method, fields)

  def test_a_server_without_warmth_searches_all_the_same(self):
    served = dataclasses.replace(SERVED, temperature=0.0)
    for fields, method in (
      ({}, "search"),
      ({"temperature": None}, "search"),
      ({"temperature": 0}, "greedy"),
    ):
      found = read(served=served, **fields)
      self.assertEqual(found.budget.method, method, fields)

  def test_a_temperature_is_of_all_samples(self):
    for fields, temperature in (
      ({}, None),
      ({"temperature": 1.4}, None),
      ({"temperature": 2}, 2.0),
      ({"temperature": 0.3, "method": "majority"}, 0.3),
      ({"temperature": 0, "method": "majority"}, 0.0),
    ):
      self.assertEqual(read(**fields).temperature, temperature, fields)
      found = read(chat=False, prompt="a", **fields)
      self.assertEqual(found.temperature, temperature, fields)

  def test_where_there_is_one_temperature_another_is_refused(self):
    served = dataclasses.replace(SERVED, any_temperature=False)
    for fields in ({}, {"temperature": 1.4}, {"temperature": 0}):
      self.assertIsNotNone(read(served=served, **fields))
    with self.assertRaisesRegex(wire.Refused, "0.3 is asked for, and 1.4 se"):
      read(served=served, temperature=0.3)

  def test_a_server_may_be_warmer_than_a_request(self):
    served = dataclasses.replace(SERVED, temperature=2.5)
    self.assertIsNone(read(served=served).temperature)

  def test_the_ceiling_is_of_all_choices(self):
    self.assertEqual(read(n=8).choices, 8)
    with self.assertRaisesRegex(wire.Refused, "is 72; 64 is the most"):
      read(n=9)
    self.assertEqual(read(n=64, method="greedy").choices, 64)

  def test_all_methods_have_a_name(self):
    self.assertContainsSubset(SERVED.methods, METHODS)
    self.assertEqual(SERVED.names[:2], ["toy", "toy:search"])


if __name__ == "__main__":
  absltest.main()
