# Two images from one file:
#   docker build --target cpu -t aisle:cpu .
#   docker build --target gpu -t aisle:gpu .     (x86_64; the NVIDIA container toolkit gives it the driver)
# A published bundle is mounted read-only at /bundles; only /tmp is written to.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

# The wheel of aisle itself, from hash-locked build tools.
FROM base AS wheel
WORKDIR /src
COPY requirements/build.lock requirements/build.lock
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY models models
COPY scripts scripts
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheel .

# Dependencies before code: a change of the code leaves these layers alone.
FROM base AS venv-cpu
COPY requirements/cpu.lock /src/requirements/cpu.lock
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --require-hashes -r /src/requirements/cpu.lock
COPY --from=wheel /opt/wheel /opt/wheel
RUN /opt/venv/bin/pip install --no-deps --no-index --find-links /opt/wheel aisle \
    && /opt/venv/bin/python -m compileall -q /opt/venv/lib \
    && /opt/venv/bin/pip uninstall -y pip setuptools

FROM base AS venv-gpu
COPY requirements/gpu.lock /src/requirements/gpu.lock
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --require-hashes -r /src/requirements/gpu.lock
COPY --from=wheel /opt/wheel /opt/wheel
RUN /opt/venv/bin/pip install --no-deps --no-index --find-links /opt/wheel aisle \
    && /opt/venv/bin/python -m compileall -q /opt/venv/lib \
    && /opt/venv/bin/pip uninstall -y pip setuptools

# The kernels are compiled for the processor they meet, at start, before the service calls itself ready.
FROM base AS service
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/tmp/numba \
    ORT_DISABLE_TELEMETRY=1 \
    AISLE_BUNDLES=/bundles \
    AISLE_HOST=0.0.0.0 \
    AISLE_PORT=8000
WORKDIR /app
USER 65534:65534
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['AISLE_PORT']}/readyz\", timeout=2)"]
CMD ["aisle", "serve"]

FROM service AS gpu
ENV AISLE_PROVIDER=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=venv-gpu /opt/venv /opt/venv

FROM service AS cpu
ENV AISLE_PROVIDER=cpu
COPY --from=venv-cpu /opt/venv /opt/venv
