# The relay with all its roles in one process, as an unprivileged user.
#
#   docker build -t scoped-relay .
#   docker run --rm -v relay:/var/lib/relay scoped-relay keys new --dir /var/lib/relay/keys
#   docker run -p 8000:8000 -p 8001:8001 -v ./relay.toml:/etc/relay/relay.toml:ro -v relay:/var/lib/relay scoped-relay
#
# The settings are mounted, never built in: they hold secrets, and their file must be readable for user 10001. State,
# audit log and keys go to the volume, whatever paths the settings name: variables win over the file.

FROM python:3.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/relay
COPY pyproject.toml README.md LICENSE ./
COPY relay ./relay
RUN /opt/relay/bin/python -m pip install .

FROM python:3.13-slim-bookworm
ENV PATH=/opt/relay/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RELAY_TOKENS__KEYS_DIR=/var/lib/relay/keys \
    RELAY_ENGINE__STATE_PATH=/var/lib/relay/relay-state.db \
    RELAY_AUDIT__KEYS_DIR=/var/lib/relay/audit-keys \
    RELAY_AUDIT__PATH=/var/lib/relay/audit.jsonl
# Numbers, so that an orchestrator that refuses root can see that this isn't root, and volumes can be given to it.
RUN groupadd --system --gid 10001 relay \
 && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/relay --shell /usr/sbin/nologin relay \
 && install -d -o relay -g relay -m 0700 /var/lib/relay \
 && install -d -m 0755 /etc/relay
# The code belongs to root: whoever takes over the process can't change it.
COPY --from=build /opt/relay /opt/relay
USER 10001:10001
WORKDIR /var/lib/relay
VOLUME /var/lib/relay
# 8002, the internal listener, is left out on purpose: publish it only where backends and operators are.
EXPOSE 8000 8001
# SIGTERM drains for 8 seconds, within the 10 that `docker stop` waits.
STOPSIGNAL SIGTERM
# Asked from inside, in Python: the image has no curl, and a proxy in the environment must not be asked instead.
# With listen.internal_tls, or on another port, say what fits instead (docker run --health-cmd).
HEALTHCHECK --interval=10s --timeout=4s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8002, timeout=3); c.request('GET', '/live'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["relay"]
CMD ["serve", "--config", "/etc/relay/relay.toml"]
