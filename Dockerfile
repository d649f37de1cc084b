# The gateway's image. Every distribution in it is pinned and hashed; the running stage holds neither pip's cache, nor the
# sources, nor a compiler, and runs as a user without rights.
#
#   docker build -t wardgate .
#   docker run -p 8080:8080 -v wardgate:/data wardgate

FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/build && python -m venv --without-pip /opt/wardgate

# Locks first: a change of the sources alone leaves these layers as they are.
COPY requirements.lock requirements-build.lock ./
RUN /opt/build/bin/pip install --only-binary :all: --require-hashes -r requirements-build.lock \
 && /opt/build/bin/pip --python /opt/wardgate/bin/python install --only-binary :all: --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY router router
COPY keystore keystore
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --no-index --wheel-dir /dist . \
 && /opt/build/bin/pip --python /opt/wardgate/bin/python install --no-deps --no-index /dist/*.whl

FROM python:3.12-slim
RUN groupadd --system --gid 10001 wardgate \
 && useradd --system --uid 10001 --gid wardgate --home-dir /data --no-create-home --shell /usr/sbin/nologin wardgate \
 && install --directory --owner wardgate --group wardgate --mode 0700 /data
COPY --from=build /opt/wardgate /opt/wardgate

# wardgate.toml is looked for in the working directory: /data/wardgate.toml.
ENV PATH=/opt/wardgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    WARDGATE_HOST=0.0.0.0 \
    WARDGATE_JOURNAL=/data/journal \
    WARDGATE_PORT=8080 \
    WARDGATE_METRICS_PORT=9091 \
    WARDGATE_DATABASE_URL=sqlite+aiosqlite:////data/wardgate.db \
    WARDGATE_SEALING_KEYS_FILE=/data/sealing-keys
WORKDIR /data
USER 10001:10001
VOLUME ["/data"]
EXPOSE 8080 9091
STOPSIGNAL SIGTERM

# With WARDGATE_PRELOAD_LITELLM its import takes some seconds, and /readyz says no until it is done.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['WARDGATE_PORT']), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]

CMD ["wardgate", "serve"]
