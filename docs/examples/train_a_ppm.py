"""Trains a PPM on preference pairs of one's own, and asks it about a solution.

python docs/examples/train_a_ppm.py
"""

import rstar_jax as rj


def step(code):
  return f"<code>\n{code}\n<end_of_step>"


# The same question and the same steps so far; the better next step is "chosen".
pairs = [
  {
    "question": f"Ann has {have} pens and buys {more}. How many has she now?",
    "chosen": [step(f"pens = {have} + {more}")],
    "rejected": [step(f"pens = {have} - {more}")],
  }
  for have in range(10, 18)
  for more in range(2, 6)
]
config = rj.TrainConfig(
  epochs=4, batch_size=8, learning_rate=1e-3, schedule="constant", length=128
)
# `policy` would name a model of your own; here it is the package's tiny one.
rj.train_ppm(pairs, policy="", folder="my_ppm", config=config)

ppm, tokenizer = rj.load_ppm("my_ppm"), rj.load_tokenizer("my_ppm")
question = "Bob has 21 pens and buys 7. How many has he now?"
values = {
  code: rj.step_values(ppm, tokenizer, question, [step(code)])[0]
  for code in ("pens = 21 - 7", "pens = 21 + 7")
}
print("The better step:", max(values, key=values.get))
