"""A proxy that refuses WebSockets; one that leaves them without an answer is in `tests.support.tcp_proxies`."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.ports import free_ports
from tests.support.reverse_proxy import needed


@contextlib.asynccontextmanager
async def refusing_upgrades(target: int, folder: Path) -> AsyncIterator[int]:
    """Run nginx as it is set up for plain HTTP: no Upgrade headers, buffers, and HTTP/1.0 to the relay."""
    (port,) = free_ports(1)
    user = "user root;" if os.geteuid() == 0 else ""
    spaces = "".join(
        f"{name}_temp_path {folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "blocking.conf").write_text(
        f"{user} daemon off; worker_processes 1; pid {folder}/blocking.pid; events {{}}\n"
        f"http {{ {spaces} access_log off; server {{ listen 127.0.0.1:{port};\n"
        f"location / {{ proxy_pass http://127.0.0.1:{target}; }} }} }}\n"
    )
    command = ["-p", str(folder), "-c", str(folder / "blocking.conf"), "-e", str(folder / "blocking.log")]
    process = await asyncio.create_subprocess_exec(needed("nginx"), *command)
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.02)  # nobody tells when it listens
        yield port
    finally:
        process.terminate()
        await process.wait()
