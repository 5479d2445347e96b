"""What the relay's HTTP is compared with, and the proxy's backend: `python -m relay.bench.load.plain_http`.

nothing   POST / gets an empty JSON object: Starlette on uvicorn, with the relay's bounds and security headers
backend   answers every GET with the same 800 bytes of JSON, as cheaply as Python can
plain     Starlette, uvicorn and httpx: takes the access token from the cookie, and checks nothing
nginx     `proxy_pass` with a constant token, in one process; nginx takes this process's place

in   {"backend": port, "folder": "/an/empty/folder"}      the first two need neither
out  {"port": p}                                           it serves until it is ended by SIGTERM
"""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import httpx
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from relay.bench.load.orders import read_order, say
from relay.net.sockets import bind, bound_port
from relay.web.answers import json_answer
from relay.web.uvicorn_runner import HttpServer

CONNECTIONS = 200
_BODY = b'{"items":[' + b",".join(b'{"id":%d,"name":"user %d"}' % (i, i) for i in range(30)) + b"]}"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)
_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-errors.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive {connections}; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 1000000;
    location /api/proxy/ {{
      proxy_pass http://backend/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Cookie "";
      proxy_set_header Authorization "Bearer {token}";
    }}
  }}
}}
"""


def nginx_program() -> str | None:
    """Return where nginx is, also if it is in Debian's place for it, or None."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


class _Backend(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._received = cast("asyncio.Transport", transport), b""

    def data_received(self, data: bytes) -> None:
        *whole, self._received = (self._received + data).split(b"\r\n\r\n")
        self._transport.write(_ANSWER * len(whole))


async def _nothing() -> None:
    async def nothing(_request: Request) -> Response:
        return json_answer(200, {})

    sock = bind("127.0.0.1:0", setting="the yardstick")
    server = HttpServer(Starlette(routes=[Route("/", nothing, methods=["POST"])]), sock)
    serving = asyncio.create_task(server.run())
    await server.started()
    say(port=bound_port(sock))
    await serving


async def _backend() -> None:
    server = await asyncio.get_running_loop().create_server(_Backend, "127.0.0.1", 0)
    say(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _plain(order: dict[str, Any]) -> None:
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{order['backend']}", trust_env=False, limits=limits
    )

    async def forward(request: Request) -> Response:
        headers = {"Authorization": f"Bearer {request.cookies.get('access-token', '')}"}
        path = httpx.URL(path=f"/{request.path_params['path']}", query=request.url.query.encode())
        answer = await client.send(client.build_request(request.method, path, headers=headers), stream=True)
        kept = {name: answer.headers[name] for name in ("content-type", "content-length")}
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose)
        )

    sock = bind("127.0.0.1:0", setting="the yardstick")
    say(port=bound_port(sock))
    app = Starlette(routes=[Route("/api/proxy/{path:path}", forward)])
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[sock])


def _nginx(order: dict[str, Any]) -> None:
    folder, program = Path(order["folder"]), nginx_program()
    assert program is not None, "the benchmark has looked for it"
    with bind("127.0.0.1:0", setting="nginx") as sock:
        port = bound_port(sock)
    text = _NGINX.format(**order, port=port, connections=CONNECTIONS, token="x" * 300)
    (folder / "nginx.conf").write_text(text)
    say(port=port)
    arguments = ["-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx-errors.log")]
    os.execv(program, [program, *arguments])  # noqa: S606  # a program, not a shell


if __name__ == "__main__":
    if sys.argv[1] in ("nothing", "backend"):
        uvloop.run(_nothing() if sys.argv[1] == "nothing" else _backend())
    else:
        {"plain": _plain, "nginx": _nginx}[sys.argv[1]](read_order())
