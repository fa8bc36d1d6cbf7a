"""A task of one's own: its problems, and what an answer is worth.

python docs/examples/own_task.py
"""

import functools
import re

import rstar_jax as rj


def problems(split):
  """Yields rows of any data set; these have no answer."""
  for pens, hens in ((3, 14), (2, 12)) if split == "train" else ((4, 11),):
    question = f"Sila keeps {pens} pens of {hens} hens."
    yield {"question": f"{question} How many hens does Sila keep?"}


def reward(problem, answer):
  """Returns what an answer is worth: 1 if it is right, less the farther off."""
  pens, hens = map(int, re.findall(r"\d+", problem.question))
  if not answer.isdigit():
    return -1.0
  return max(1 - abs(int(answer) - pens * hens) / 10, -1.0)


task = functools.partial(rj.Task, problems=problems, reward=reward)
config = rj.load_config("configs/tiny.py")
# "my_file:task" in a config file; `rj.evolve(run)` would train on it.
config.task = f"{__name__}:task"
config.train = rj.DataConfig(source="task:train")
config.search.rollouts = 4
with rj.open_run(config, "runs/own_task") as run:
  found = rj.load_problems(config.train, task=run.task)
  trees = rj.search(found, config.search, rj.load_calls(run, 0))
for tree in trees:
  answers = {each.answer for each in rj.trajectories(tree)}
  best = max(answers, key=lambda each: reward(tree.problem, each))
  print(tree.problem.question, "The best answer is", best)
