"""`relay demo` as a user sees it: what it prints, and what it does when its processes end."""

import asyncio
import os
import re
import signal
import socket
from typing import Any

import psutil

from tests.support.demo_process import START_S, Demo, running_demo, started_demo
from tests.support.http_client import http_client

PROCESS = r"^  restart +kill (\d+)$|^The relay runs again, as process (\d+)\.$"


async def relay_process(demo: Demo, *, starts: int = 1) -> int:
    """Return the number of the relay's process, after so many starts."""
    _, first, later = await demo.said(PROCESS, times=starts)
    return int(first or later)


async def shell(command: str) -> tuple[int, str]:
    """Run a line as a user pastes it, in a shell that knows no `relay`."""
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        command,
        cwd="/",
        env={"PATH": os.defpath},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def market_is_open(demo: Demo) -> None:
    """Wait until the market has published something to the relay of now, which counts from its start."""
    url, key = re.findall(r"watch +(\S+)/ops\n +with the key (\S+)", demo.output)[0]
    async with http_client() as client:
        async with asyncio.timeout(START_S):
            while True:
                answer = await client.get(f"{url}/v1/publishers", headers={"Authorization": f"Bearer {key}"})
                rows: list[dict[str, Any]] = answer.json()["publishers"]
                if sum(row["published"] for row in rows):
                    return


async def test_its_printed_commands_work_as_pasted() -> None:
    """They name the `relay` of the demo's environment, which is in nobody's PATH."""
    async with running_demo() as demo:
        publish = re.search(r"publish +(.+\\\n.+)\n", demo.output)
        verify = re.search(r"audit log +(.+)\n", demo.output)
        assert publish
        assert verify
        code, said = await shell(publish[1])
        assert (code, "BTC-USD" in said) == (0, True), said
        code, said = await shell(verify[1])
        assert code == 0, said
        restart = re.search(r"restart +(.+)\n", demo.output)
        assert restart
        assert await shell(restart[1]) == (0, "")
        await demo.said(r"^The relay ended with exit code 0\. It is started again\.$")
        await relay_process(demo, starts=2)


async def test_it_survives_the_end_of_its_relay_and_its_backend() -> None:
    """The same relay comes back at the same addresses, the market goes on, and users can log in."""
    async with running_demo() as demo:
        await market_is_open(demo)
        processes = psutil.Process(demo.process.pid).children()
        assert await relay_process(demo) in [process.pid for process in processes]
        for process in processes:
            process.kill()
        await demo.said(r"^The relay ended with SIGKILL\. It is started again\.$")
        await demo.said(r"^The backend runs again")
        await relay_process(demo, starts=2)
        await market_is_open(demo)
        async with http_client() as client:
            answer = await client.post(
                f"{demo.origin}/api/auth/login",
                json={"email": "demo@example.com", "password": "demo"},
                headers={"Origin": demo.origin},
            )
        assert answer.status_code == 200, answer.text


async def test_it_ends_with_a_sentence_if_the_relay_can_not_be_started_again() -> None:
    """Something else has taken its port."""
    async with started_demo() as demo:
        process = await relay_process(demo)
        port = int(demo.origin.rpartition(":")[2])
        os.kill(process, signal.SIGKILL)
        await demo.said("^The relay ended with SIGKILL")
        # the relay needs a second to start, and a socket a moment to be bound
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", port))
            taken.listen()
            await demo.process.wait()
    assert demo.process.returncode == 2
    last = demo.output.strip().splitlines()[-1]
    assert last.startswith("The relay did not start: "), demo.output
    assert str(port) in last
    assert "Traceback" not in demo.output
