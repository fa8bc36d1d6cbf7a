"""The server's answers, to clients that nobody here wrote."""

import concurrent.futures
import json
import logging
import socket

import openai
from absl.testing import absltest, parameterized

from rstar_jax.serve import service
from tests.serve import served
from tests.serve.served import QUESTION, until

USER = [{"role": "user", "content": QUESTION}]


# It writes a line a request.
logging.getLogger("httpx").setLevel(logging.WARNING)


class ClientTest(served.ServedCase):
  """OpenAI's own client."""

  def setUp(self):
    super().setUp()
    self.client = openai.OpenAI(
      base_url=self.url, api_key="none", max_retries=0, timeout=60
    )
    self.addCleanup(self.client.close)

  def create(self, **options):
    extra = {
      name: options.pop(name)
      for name in ("method", "samples", "rollouts", "candidates", "tree")
      if name in options
    }
    options = {"model": "toy", "messages": USER} | options
    return self.client.chat.completions.create(**options, extra_body=extra)

  def test_a_chat_is_answered_as_solve_answers(self):
    wanted = self.solved(QUESTION)
    found = self.create()
    choice = found.choices[0]
    self.assertEqual(choice.finish_reason, "stop")
    self.assertEqual(choice.rstar_jax["answer"], wanted.answer)
    self.assertEqual(choice.rstar_jax["values"], wanted.values)
    self.assertEqual(choice.rstar_jax["outputs"], wanted.outputs)
    self.assertIn(f"\\boxed{{{wanted.answer}}}", choice.message.content)
    self.assertIn("```python\nx = 0\n", choice.message.content)
    self.assertEqual(found.usage.completion_tokens, wanted.tokens)
    self.assertGreater(found.usage.prompt_tokens, len(QUESTION.split()))
    self.assertNotIn("tree", choice.rstar_jax)

  @parameterized.parameters(
    {"method": "greedy"},
    {"method": "majority", "samples": 3},
    {"method": "best_of_n", "samples": 5},
    {"method": "search", "rollouts": 3, "candidates": 2},
  )
  def test_a_budget_by_fields(self, **asked):
    wanted = self.solved(QUESTION, **asked)
    (choice,) = self.create(**asked).choices
    self.assertEqual(choice.rstar_jax["answer"], wanted.answer)
    self.assertEqual(choice.rstar_jax["tokens"], wanted.tokens)
    budget = choice.rstar_jax["budget"]
    self.assertEqual({name: budget[name] for name in asked}, asked)

  def test_a_budget_by_the_model_s_name_or_the_temperature(self):
    names = [each.id for each in self.client.models.list()]
    self.assertEqual(names[0], "toy")
    for name in names[1:]:
      (choice,) = self.create(model=name).choices
      self.assertEqual(
        choice.rstar_jax["budget"]["method"], name.removeprefix("toy:")
      )
    (choice,) = self.create(temperature=0).choices
    self.assertEqual(choice.rstar_jax["budget"]["method"], "greedy")

  @parameterized.parameters("search", "majority")
  def test_a_temperature_of_a_request(self, method):
    asked = self.solver.backend.temperatures
    asked.clear()
    self.create(method=method, temperature=0.3)
    self.assertEqual(asked.count(0.3), 1)
    self.create(method=method, temperature=self.served.temperature)
    self.assertEqual(set(asked), {0.3} | set(asked) & {None})
    self.assertEqual(asked.count(0.3), 1)

  def test_choices_and_seeds(self):
    found = self.create(n=3, seed=5, method="search")
    for number, choice in enumerate(found.choices):
      wanted = self.solved(QUESTION, "search", 5, number)
      self.assertEqual(choice.index, number)
      self.assertEqual(choice.rstar_jax["values"], wanted.values)
    self.assertEqual(
      found.usage.completion_tokens,
      sum(choice.rstar_jax["tokens"] for choice in found.choices),
    )

  def test_a_stream_has_the_same_text(self):
    whole = self.create(n=2)
    texts, ends, usage = ["", ""], {}, None
    for part in self.create(
      n=2, stream=True, stream_options={"include_usage": True}
    ):
      usage = part.usage or usage
      for choice in part.choices:
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
          ends[choice.index] = choice.rstar_jax["answer"]
    self.assertEqual(texts, [each.message.content for each in whole.choices])
    self.assertEqual(
      ends, {each.index: each.rstar_jax["answer"] for each in whole.choices}
    )
    self.assertEqual(usage, whole.usage)

  def test_a_stream_shows_how_the_tree_grows(self):
    texts, growth, tree = [""], [], None
    for part in self.create(stream=True, tree=True, method="search"):
      (choice,) = part.choices
      more = getattr(choice, "rstar_jax", None) or {}
      if "grown" in more:
        self.assertFalse(choice.delta.content)
        texts += more["grown"]["text"]
        growth += more["grown"]["growth"]
      tree = more.get("tree", tree)
    self.assertEqual(texts[1:], tree["text"])
    self.assertEqual(growth, tree["growth"])
    wanted = self.solved(QUESTION, "search")
    self.assertEqual(tree["chosen"], [wanted.node])
    self.assertEqual(tree["text"], wanted.tree.texts)

  def test_a_completion(self):
    chat = self.create().choices[0].message.content
    found = self.client.completions.create(model="toy", prompt=QUESTION)
    self.assertEqual(found.choices[0].text, chat)
    parts = self.client.completions.create(
      model="toy", prompt=QUESTION, stream=True
    )
    self.assertEqual("".join(each.choices[0].text for each in parts), chat)

  def test_an_answer_is_cut(self):
    whole = self.create().choices[0].message.content
    (choice,) = self.create(stop=["print", "nowhere"]).choices
    self.assertEqual(choice.message.content, whole[: whole.index("print")])
    self.assertEqual(choice.finish_reason, "stop")
    (choice,) = self.create(max_tokens=9).choices
    self.assertStartsWith(whole, choice.message.content)
    self.assertBetween(len(choice.message.content), 5, len(whole) - 20)
    self.assertEqual(choice.finish_reason, "length")
    text = "".join(
      each.choices[0].delta.content or ""
      for each in self.create(max_tokens=9, stream=True)
    )
    self.assertEqual(text, choice.message.content)

  def test_errors_are_openai_s(self):
    with self.assertRaises(openai.BadRequestError) as caught:
      self.create(method="guess")
    self.assertEqual(caught.exception.param, "method")
    with self.assertRaises(openai.NotFoundError):
      self.create(model="gpt-4")
    for stream in (False, True):
      with self.assertRaisesRegex(openai.APIError, "RuntimeError") as caught:
        list(self.create(
          messages=[{"role": "user", "content": "broken"}], stream=stream
        ))  # fmt: skip
      self.assertNotIn("secret", str(caught.exception))

  def test_fifty_at_once_are_answered_as_alone(self):
    seeds = range(50)

    def one(seed):
      method = ("search", "best_of_n", "greedy")[seed % 3]
      found = self.create(seed=seed, method=method, stream=bool(seed % 2))
      if seed % 2:
        return "".join(e.choices[0].delta.content or "" for e in found)
      return found.choices[0].message.content

    alone = [one(seed) for seed in seeds[:12]]
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
      at_once = list(pool.map(one, seeds))
    self.assertEqual(at_once[:12], alone)
    self.assertGreater(len(set(at_once)), 3)


class ClientsTest(served.ServedCase):
  """Clients that hang, leave, send rubbish or too much."""

  limits = service.Limits(places=3, line=2, seconds=600.0)

  def test_a_client_that_leaves_frees_its_place(self):
    for stream in (False, True):
      self.policy.go.clear()
      body = {"messages": USER, "stream": stream, "rollouts": 9}
      connection = self.connection()
      connection.request(
        "POST",
        "/v1/chat/completions",
        json.dumps(body),
        {"Content-Type": "application/json"},
      )
      until(lambda: self.service.running == 1)
      if stream:
        connection.getresponse().readline()
      connection.sock.shutdown(socket.SHUT_RDWR)
      connection.close()
      # Its only call is being made; nothing else is asked for.
      self.policy.go.set()
      until(lambda: self.service.idle)
      text = self.ask("/metrics")[1]
      self.assertIn('outcome="client_left"', text)

  def test_one_too_many_is_told_when_to_come_again(self):
    self.policy.go.clear()
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
      answers = [pool.submit(self.chat) for _ in range(5)]
      until(lambda: self.service.running == 3 and self.service.waiting == 2)
      messages = {"messages": USER}
      status, answer, headers = self.ask("/v1/chat/completions", messages)
      self.assertEqual(status, 429)
      self.assertEqual(answer["error"]["code"], "rate_limit_exceeded")
      self.assertBetween(int(headers["retry-after"]), 1, 60)
      self.policy.go.set()
      self.assertEqual([each.result()[0] for each in answers], [200] * 5)


class RefusalsTest(served.ServedCase):
  def test_a_question_of_too_many_tokens(self):
    # Fewer than its characters allow.
    status, answer = self.chat("1 " * 249)
    self.assertEqual(status, 400)
    self.assertEqual(answer["error"]["code"], "context_length_exceeded")
    self.assertEqual(answer["error"]["param"], "messages")

  @parameterized.parameters(
    (b"{", 400, "is not JSON"),
    (b"[]", 400, "no JSON object"),
    (b"\xff", 400, "not UTF-8"),
    (b'{"n": 1, "n": 2}', 400, "twice"),
    (b"[" * 200 + b"]" * 200, 400, "nested too deeply"),
    (b" " * (1 << 20) + b"{}", 413, "longer than"),
  )
  def test_rubbish(self, body, code, words):
    status, answer, _ = self.ask("/v1/chat/completions", body)
    self.assertEqual(status, code)
    self.assertIn(words, answer["error"]["message"])

  def test_paths(self):
    for path, body, code in (
      ("/v1/nothing", None, 404),
      ("/v1/chat/completions", None, 405),
      ("/health", {}, 405),
      ("/assets/nothing.js", None, 404),
      ("/assets/..%2fpage.py", None, 404),
    ):
      status, answer, _ = self.ask(path, body)
      self.assertEqual((status, list(answer)), (code, ["error"]))
    text = self.ask("/metrics")[1]
    for code, count in ((404, 3), (405, 2)):
      name = f'rstar_jax_refusals_total{{status="{code}"}}'
      self.assertIn(f"{name} {count}.0", text)

  def test_a_page_of_another_site_cannot_ask(self):
    # A form sends such a type without a question.
    kind = {"Content-Type": "text/plain"}
    status, _, headers = self.ask("/v1/chat/completions", {}, kind.items())
    self.assertEqual(status, 415)
    self.assertNotIn("access-control-allow-origin", headers)


class GuardedTest(served.ServedCase):
  options = {"token": "s3cret", "hosts": ("127.0.0.1", "[::1]")}

  def test_a_token(self):
    for given, code in (
      (None, 401),
      ("Bearer s3cre", 401),
      ("Bearer s3cret2", 401),
      ("Basic s3cret", 401),
      ("Bearer \xe9", 401),
      ("Bearer s3cret", 200),
      ("bearer s3cret", 200),
    ):
      headers = {"Authorization": given} if given else {}
      status, answer, _ = self.ask("/v1/models", None, headers.items())
      self.assertEqual(status, code, given)
      self.assertNotIn("s3cret", json.dumps(answer))
    self.assertEqual(self.ask("/metrics")[0], 401)
    self.assertEqual(self.ask("/health")[0], 200)
    self.assertEqual(self.ask("/")[0], 200)

  def test_another_name_of_the_server(self):
    for host, code in (
      *(("127.0.0.1", 200), ("127.0.0.1:99", 200), ("[::1]", 200)),
      *(("[::1]:80", 200), ("evil.example:80", 421), ("", 421)),
      ("evil.example", 421),
    ):
      self.assertEqual(self.ask("/", None, {"Host": host}.items())[0], code)


if __name__ == "__main__":
  absltest.main()
