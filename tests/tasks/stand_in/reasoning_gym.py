"""In the place of the library of this name, which has no wheels."""


def create_dataset(name, **options):
  """Returns a data set, of the library's form."""
  if name not in _DATA:
    raise ValueError(f"Dataset '{name}' not registered")
  return _DATA[name](**options)


class Squares:
  """Asks for the square of a problem's number; 1/4 less for each 1 off."""

  def __init__(self, size, seed):
    self.size, self.seed = size, seed

  def __getitem__(self, index):
    number = self.seed + index
    return {"question": f"What is {number}^2?", "answer": str(number**2)}

  def score_answer(self, answer, entry):
    off = abs(int(answer) - int(entry["answer"]))
    return max(0.0, 1.0 - off / 4)


class Evaluated(Squares):
  """Evaluates answers, as sympy's parser does."""

  def score_answer(self, answer, entry):
    return float(eval(answer) == int(entry["answer"]))


class Sums(Squares):
  """Has answers from 2 to 6, and gives 1/4 of a point to what is 1 off."""

  def __getitem__(self, index):
    number = self.seed + index
    question = f"Number {number}: how much is it?"
    return {"question": question, "answer": str(2 + number % 5)}

  def score_answer(self, answer, entry):
    off = abs(int(answer) - int(entry["answer"]))
    return {0: 1.0, 1: 0.25}.get(off, 0.0)


class Hashed(Squares):
  """Has answers that depend on the hashes of texts."""

  def __getitem__(self, index):
    number = self.seed + index
    answer = f"word {hash(str(number)) % 1000}"
    return {"question": f"Which word is {number}?", "answer": answer}

  def score_answer(self, answer, entry):
    return float(answer == entry["answer"])


_DATA = {
  "hashed": Hashed,
  "squares": Squares,
  "evaluated": Evaluated,
  "sums": Sums,
}
