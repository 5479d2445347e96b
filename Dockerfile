# The relay with all its roles in one process, as an unprivileged user.
#
#   docker build -t scoped-relay .
#   docker run --rm -v relay:/var/lib/relay scoped-relay keys new --if-missing --dir /var/lib/relay/keys
#   docker run -p 8000:8000 -p 8001:8001 -v ./relay.toml:/etc/relay/relay.toml:ro -v relay:/var/lib/relay scoped-relay
#
# The settings are mounted and never built into the image, because they hold secrets. User 10001 must be able to read the file, and no
# other user: sudo chown 10001 relay.toml && sudo chmod 600 relay.toml. The variables below win over the file: state, audit log and keys
# go to the volume, and the public listeners are not on the container's loopback. examples/deploy/compose.yaml has all of this.

FROM python:3.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The packages are those of the constraints, checked against their hashes. What builds the wheel stays out of the image.
COPY examples/constraints.txt examples/build-constraints.txt ./
RUN python -m venv /opt/relay && /opt/relay/bin/python -m pip install --require-hashes -r constraints.txt \
 && python -m venv /opt/build && /opt/build/bin/python -m pip install --require-hashes -r build-constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY relay ./relay
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/relay/bin/python -m pip install --no-deps --no-index /dist/*.whl

FROM python:3.13-slim-bookworm
ENV PATH=/opt/relay/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RELAY_LISTEN__HTTP=0.0.0.0:8000 \
    RELAY_LISTEN__STREAM=0.0.0.0:8001 \
    RELAY_TOKENS__KEYS_DIR=/var/lib/relay/keys \
    RELAY_ENGINE__STATE_PATH=/var/lib/relay/relay-state.db \
    RELAY_AUDIT__KEYS_DIR=/var/lib/relay/audit-keys \
    RELAY_AUDIT__PATH=/var/lib/relay/audit.jsonl
# Numbers, so that an orchestrator can see that this user is not root, and so that volumes can belong to it.
RUN groupadd --system --gid 10001 relay \
 && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/relay --shell /usr/sbin/nologin relay \
 && install -d -o relay -g relay -m 0700 /var/lib/relay \
 && install -d -m 0755 /etc/relay
# The code belongs to root, so that an attacker in the process can't change it.
COPY --from=build /opt/relay /opt/relay
USER 10001:10001
WORKDIR /var/lib/relay
VOLUME /var/lib/relay
# The internal listener (8002) is not exposed: publish it only to backends and operators.
EXPOSE 8000 8001
# SIGTERM drains for 8 seconds, within the 10 that `docker stop` waits.
STOPSIGNAL SIGTERM
# Python calls the relay itself, because the image has no curl, and so that a proxy in the environment is not used.
# With listen.internal_tls, or with another port, replace this command (docker run --health-cmd).
HEALTHCHECK --interval=10s --timeout=4s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8002, timeout=3); c.request('GET', '/live'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["relay"]
CMD ["serve", "--config", "/etc/relay/relay.toml"]
