"""Who may ask a server: names, tokens and forms, each by hand."""

from email import message

from absl.testing import absltest, parameterized

from rstar_jax.serve import access
from rstar_jax.serve.wire import Refused

NAMES = ("localhost", "127.0.0.1")


def headers_of(**fields):
  headers = message.Message()
  for name, value in fields.items():
    headers[name.replace("_", "-")] = value
  return headers


class AccessTest(parameterized.TestCase):
  def status(self, call, *args):
    try:
      call(*args)
    except Refused as error:
      return error.status
    return 200

  @parameterized.parameters(
    (dict(Host="localhost:80"), "", NAMES, 200),
    (dict(Host="evil.example"), "", NAMES, 421),
    ({}, "", NAMES, 421),
    (dict(Host="evil.example"), "", (), 200),
    (dict(Authorization="Bearer s3cret"), "s3cret", (), 200),
    (dict(authorization="bearer  s3cret "), "s3cret", (), 200),
    (dict(Authorization="Bearer s3cre"), "s3cret", (), 401),
    (dict(Authorization="Basic s3cret"), "s3cret", (), 401),
    (dict(Authorization="Bearer s\xe9cret"), "s3cret", (), 401),
    ({}, "s3cret", (), 401),
    ({}, "", (), 200),
  )
  def test_who(self, fields, token, hosts, status):
    found = self.status(access.check, headers_of(**fields), token, hosts)
    self.assertEqual(found, status)

  @parameterized.parameters(
    ("application/json", 200),
    ("Application/JSON; charset=utf-8", 200),
    ("text/plain", 415),
    ("text/plain; application/json", 415),
    ("", 415),
  )
  def test_the_form(self, kind, status):
    fields = {"Content_Type": kind} if kind else {}
    found = self.status(access.check_form, headers_of(**fields))
    self.assertEqual(found, status)


if __name__ == "__main__":
  absltest.main()
