"""The model card, README.md, of a saved model."""

from rstar_jax.hf.family_config import FAMILIES
from rstar_jax.models.config import ModelConfig
from rstar_jax.steps import grammar, prompts

_POLICY = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [rstar-math, code-augmented-reasoning]
---
# A policy of rstar_jax

A causal language model (`{architecture}`, {size}) that writes one reasoning
step at a time: Python with its reasoning in comments, closed by a marker. Each
step is run, what the last one prints is shown to the model, and the model
answers.

```python
import transformers

model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER)
tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
```

The prompt is this text, which the chat template makes of a user's message:

```
{prompt}
```

Generation stops at `{step}` (a step), `{code}` (the last step: append a line
break, `{output}`, what the code printed, `{end_of_output}` and a line break,
and go on) or `{answer}` (done). The markers are special tokens: keep them when
decoding.
"""

_PPM = """\
---
library_name: {library}
pipeline_tag: text-classification
tags: [rstar-math, process-preference-model, reward-model]
---
# A process preference model of rstar_jax

A sequence classifier with one label (`{architecture}`, {size}) that values a
partial solution at its last token. It was trained on preferences between steps,
so its values rank steps of one problem; they are not probabilities.

{use}
"""

_PPM_THERE = """\
**The logit of `transformers` is the raw value. The value is {formula}, in
(-1, 1); the tanh is not part of the saved network, so apply it yourself.**

```python
import torch, transformers

model = transformers.AutoModelForSequenceClassification.from_pretrained(FOLDER)
tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
raw = model(**tokenizer(PROMPT + STEPS, return_tensors="pt")).logits[0, 0]
value = {code}
```

PROMPT is this text, and STEPS are the steps so far, each up to its closing
marker (with the `{output}...{end_of_output}` that follows the last code):

```
{prompt}
```"""

_PPM_HERE = """\
`transformers` has no classifier of this family, so only rstar_jax loads it. The
value is {formula} of the scalar head, in (-1, 1):

```python
import rstar_jax as rj

ppm, tokenizer = rj.load_ppm(FOLDER), rj.load_tokenizer(FOLDER)
values = rj.step_values(ppm, tokenizer, QUESTION, STEPS)
```

STEPS is a list of the steps so far, each up to its closing marker (with the
`{output}...{end_of_output}` that follows the last code). The last of the values
is that of the partial solution. The steps come after this prompt:

```
{prompt}
```"""

_ADAPTER = """\
---
library_name: peft
tags: [rstar-math, code-augmented-reasoning, lora]
---
# An update of rstar_jax

What LoRA trained, alone, as PEFT reads it; the model with it merged is the one
to use where there is room for it. Its tokenizer is here. Where that has more
tokens than the base model, resize the base first
(`model.resize_token_embeddings(len(tokenizer))`).

```python
import peft, transformers

tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
model = peft.{loader}.from_pretrained(FOLDER)
```
"""


def adapter(head: str) -> str:
  """Returns the card of an adapter for a model with this head."""
  kind = "CausalLM" if head == "lm" else "SequenceClassification"
  return _ADAPTER.format(loader=f"AutoPeftModelFor{kind}")


def render(
  config: ModelConfig,
  head: str,
  count: int,
  prompt: prompts.Prompt = prompts.prompt,
) -> str:
  """Returns the model card.

  Args:
    config: the model's config.
    head: "lm", or the form of a scalar head.
    count: number of parameters.
    prompt: returns the text before the first step.
  """
  texts = {
    "architecture": config.family,
    "size": _size(count),
    "prompt": prompt("{question}"),
    "output": grammar.OUTPUT,
    "end_of_output": grammar.END_OF_OUTPUT,
  }
  if head == "lm":
    return _POLICY.format(
      step=grammar.END_OF_STEP,
      code=grammar.END_OF_CODE,
      answer=grammar.END_OF_ANSWER,
      **texts,
    )
  formula, code = {
    "tanh": ("tanh(logit)", "torch.tanh(raw)"),
    "logit": ("tanh(logit / 5)", "torch.tanh(raw / 5)"),
  }[head]
  there = FAMILIES[config.family].scalar
  use = (_PPM_THERE if there else _PPM_HERE).format(
    formula=formula, code=code, **texts
  )
  library = "transformers" if there else "rstar_jax"
  return _PPM.format(library=library, use=use, **texts)


def _size(count: int) -> str:
  for unit, name in ((10**9, "billion"), (10**6, "million")):
    if count >= unit:
      return f"{count / unit:.1f} {name} parameters"
  return f"{count} parameters"
