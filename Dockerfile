# The package, as it is in this folder, and what it needs.
#
#   docker build --tag=rstar_jax .
#   mkdir -p runs                        # Docker would make it as root
#   docker run --rm --volume="$PWD/runs:/runs" rstar_jax      # the demo
#   docker build --tag=IMAGE --build-arg=EXTRAS=tpu,hub,gcs,ray .  # for TPUs
#
# launch/README.md says how pods of Kubernetes run it.
FROM python:3.12-slim

# g++ makes the kernels for CPUs where they are first used; KubeRay's probes
# call wget.
RUN apt-get update \
  && apt-get install --yes --no-install-recommends g++ wget \
  && rm -rf /var/lib/apt/lists/*

ARG EXTRAS=hub,gcs
WORKDIR /rstar_jax
COPY . .
RUN python -m pip install --no-cache-dir --editable ".[${EXTRAS}]"

# What the policy writes is run here: not by root. A number, since Kubernetes
# asks for one where root is forbidden (runAsNonRoot).
RUN useradd --create-home --uid=1000 rstar \
  && mkdir /runs \
  && chown -R 1000 /rstar_jax /runs
USER 1000
CMD ["rstar_jax", "--config=configs/tiny.py", "--workdir=/runs/tiny"]
