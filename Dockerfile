# Two images from one file:
#   docker build --target gateway -t darkroom-gateway .
#   docker build --target worker -t darkroom-worker .          with the torch that pip brings on Linux, the CUDA build
#   docker build --target worker -t darkroom-worker-cpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
#
# In each image what changes least comes first: system, dependencies, code. Stages come in the order that the builder
# before BuildKit, which runs every stage above its target, wastes nothing with.
ARG PYTHON=3.11-slim-bookworm

# What both images stand on. tini is process 1: the kernel drops a SIGTERM to a process 1 that has no handler yet, and
# Python has none while it still imports.
FROM python:${PYTHON} AS base
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*
# The gateway reads what workers write: both are this user. A new volume takes over these folders' owner.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin darkroom \
 && install --directory --owner=darkroom --group=darkroom /var/lib/darkroom /var/cache/huggingface
ENV PATH=/opt/darkroom/bin:/opt/code/bin:$PATH \
    PYTHONPATH=/opt/code \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    DARKROOM_STORE_URL=file:///var/lib/darkroom
WORKDIR /var/lib/darkroom
ENTRYPOINT ["tini", "--"]

# Requirements in files of their own: what else changes in pyproject.toml installs nothing anew.
FROM python:${PYTHON} AS requirements
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; extras = p['optional-dependencies']; [open(extra + '.txt', 'w').write('\n'.join([*p['dependencies'], *extras[extra]])) for extra in ('gateway', 'worker')]" \
 && grep '^torch==' constraints.txt > torch.txt \
 && grep '^hatchling==' constraints.txt > build.txt

# Environments without pip, filled by this stage's pip.
FROM python:${PYTHON} AS installer
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/darkroom

# Our own package, whole for the worker and without the models for the gateway.
FROM installer AS code
COPY --from=requirements /build/build.txt ./
RUN python -m venv /opt/build && /opt/build/bin/python -m pip install --requirement build.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY workers workers
RUN /opt/build/bin/python -m pip install --no-deps --no-build-isolation --target /code/worker . \
 && sed -i '1s|.*|#!/opt/darkroom/bin/python|' /code/worker/bin/darkroom \
 && mkdir /code/gateway && cp -r /code/worker/app /code/worker/bin /code/worker/*.dist-info /code/gateway

FROM installer AS gateway-dependencies
COPY --from=requirements /build/constraints.txt /build/gateway.txt ./
RUN python -m pip --python /opt/darkroom/bin/python install --constraint constraints.txt --requirement gateway.txt

FROM base AS gateway
COPY --from=gateway-dependencies /opt/darkroom /opt/darkroom
# Inside a container every interface is the container's own. Who publishes the port decides who reaches it, and says so
# with DARKROOM_ALLOW_OPEN_NETWORK.
ENV DARKROOM_HOST=0.0.0.0 DARKROOM_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD python -m app.healthcheck "http://127.0.0.1:$DARKROOM_PORT/livez"
CMD ["python", "-m", "app"]
USER darkroom
COPY --from=code /code/gateway /opt/code

FROM installer AS worker-dependencies
# Empty: PyPI, whose torch for Linux on x86-64 is the CUDA build.
ARG TORCH_INDEX=
COPY --from=requirements /build/torch.txt ./
# Without its dependencies: another index may not have the versions that constraints.txt names. They come below.
RUN python -m pip --python /opt/darkroom/bin/python install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --requirement torch.txt
COPY --from=requirements /build/constraints.txt /build/worker.txt ./
RUN python -m pip --python /opt/darkroom/bin/python install --constraint constraints.txt --requirement worker.txt

FROM base AS worker
COPY --from=worker-dependencies /opt/darkroom /opt/darkroom
ENV HF_HOME=/var/cache/huggingface DARKROOM_METRICS_HOST=0.0.0.0 DARKROOM_METRICS_PORT=9100
EXPOSE 9100
# Its metrics are served once its models are loaded.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m CMD python -m app.healthcheck "http://127.0.0.1:$DARKROOM_METRICS_PORT/metrics"
CMD ["python", "-m", "workers"]
USER darkroom
COPY --from=code /code/worker /opt/code
