"""How many requests are answered at once, for how long, and how they end."""

from absl.testing import absltest

from rstar_jax.search import driver, mcts
from rstar_jax.search.tree import Tree
from rstar_jax.serve import service
from tests.search.toys import PROBLEMS, calls_of, config_of
from tests.serve import served


class GrowthTest(absltest.TestCase):
  def test_news_add_up_to_the_tree(self):
    tree, growth = Tree(PROBLEMS[0]), service.Growth()
    search = mcts.search_tree(tree, config_of(rollouts=4))
    news = []

    def told():
      found = None
      while True:
        try:
          found = yield search.send(found)
        except StopIteration as end:
          return end.value
        finally:
          news.append(growth.news(tree))

    driver.run_searches([told()], calls_of(), 1)
    news = [each for each in news if each is not None]
    self.assertGreater(len(news), 4)
    self.assertIsNone(growth.news(tree))
    for name, column in (("text", tree.texts), ("parent", tree.parent)):
      told_of = [each for part in news for each in part[name]]
      self.assertEqual(told_of, list(column))
    ends = [tuple(each) for part in news for each in part["growth"]]
    self.assertEqual(ends, tree.growth)
    self.assertEqual(news[-1]["tokens"], tree.tokens)


class LateTest(served.ServedCase):
  limits = service.Limits(places=9, line=9, seconds=0.2)

  def test_a_request_that_takes_too_long(self):
    self.policy.go.clear()
    status, answer = self.chat()
    self.assertEqual((status, answer["error"]["code"]), (504, "timeout"))
    # As a stream it has begun.
    status, text = self.chat(stream=True)
    self.assertEqual(status, 200)
    self.assertIn('"code": "timeout"', text)
    self.policy.go.set()
    self.assertIn('outcome="timeout"', self.ask("/metrics")[1])


if __name__ == "__main__":
  absltest.main()
