"""How fast the client can ask, and what memory that takes: a server that answers at once, and one of 20 a second.

Grids are PNGs of 1008 x 1008 colors and noise, 2.3 MB each, a handful of distinct ones; every request carries two.
Client and server have a process each, so that the memory is the client's own. By default 300 presentations;
ELUDEBENCH_PRESENTATIONS=13500 asks for as many as the main table has (some minutes).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROOT = Path(__file__).resolve().parent.parent.parent
N = int(os.environ.get("ELUDEBENCH_PRESENTATIONS", "300"))
SERVER = """
import asyncio, json, sys
seconds_each = float(sys.argv[1])
free_at = 0.0
text = json.dumps({"answer": "A"})
body = json.dumps({"model": "m", "choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()
ANSWER = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body

class Reader(asyncio.Protocol):
    # Counts the bytes of each request and throws them away.
    def connection_made(self, transport):
        self.transport, self.head, self.left = transport, b"", 0
    def data_received(self, data):
        if self.left == 0:
            self.head += data
            if b"\\r\\n\\r\\n" not in self.head:
                return
            head, data = self.head.split(b"\\r\\n\\r\\n", 1)
            self.head = b""
            self.left = int(head.lower().split(b"content-length: ")[1].split(b"\\r\\n")[0])
        self.left -= len(data)
        if self.left == 0:
            global free_at
            loop = asyncio.get_running_loop()
            free_at = max(free_at, loop.time()) + seconds_each
            loop.call_at(free_at, self.transport.write, ANSWER)

async def main():
    server = await asyncio.get_running_loop().create_server(Reader, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
CLIENT = """
import asyncio, io, json, resource, sys, tempfile
from pathlib import Path
import numpy as np
from PIL import Image
from judges.asking import ask
from judges.client import Endpoint
from judges.protocol import Presentation
from judges.replies import Replies
port, n = sys.argv[1], int(sys.argv[2])

def grid(seed):
    # Smooth colors and some noise: a photograph's entropy, about.
    rng = np.random.default_rng(int(seed))
    coarse = rng.integers(0, 256, (63, 63, 3)).repeat(16, axis=0).repeat(16, axis=1)
    file = io.BytesIO()
    pixels = (coarse // 2 + rng.integers(0, 32, coarse.shape)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "png", compress_level=1)
    return file.getvalue()

made = {str(seed): grid(seed) for seed in range(6)}
def of(number):
    return (str(number % 6), str((number + 1 + number // 6 % 5) % 6))
def presentation(number):
    return Presentation(str(number), str(number), ("x", "y"), (0, 1), of(number), "site", 0, 0)

todo = [presentation(number) for number in range(n)]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
before, began = peak(), cpu()
with tempfile.TemporaryDirectory() as folder, Replies(Path(folder), "j") as replies:
    replies.identify({})
    judge = Endpoint("j", "m", (f"http://127.0.0.1:{port}/v1",))
    # A copy each time, as from a disk: pictures that are shared would hide what is held.
    asked = asyncio.run(ask(judge, todo, lambda digest: bytes(bytearray(made[digest])), replies, lambda *told: None))
print(json.dumps({
    "requests_per_second": round(asked.n_answered / asked.seconds, 1),
    "cpu_ms_a_request": round(1000 * (cpu() - began) / n, 1),
    "megabytes_a_request": round(sum(len(made[digest]) for digest in made) / 3e6 * 4 / 3, 1),
    "peak_megabytes_before": round(before), "peak_megabytes": round(peak()),
    "most_in_flight": asked.most_in_flight, "n_answered": asked.n_answered, "faults": dict(asked.faults),
}))
"""


@pytest.mark.parametrize("seconds_each", [0.0, 0.05], ids=["at_once", "20_a_second"])
def test_asking(benchmark: BenchmarkFixture, seconds_each: float) -> None:
    """A judge of 20 a second answers one request after another; what it falls short of 20 is the client's part."""
    paths = {**os.environ, "PYTHONPATH": str(ROOT)}

    def asked() -> dict[str, object]:
        with subprocess.Popen(
            [sys.executable, "-c", SERVER, str(seconds_each)], stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout is not None
                port = server.stdout.readline().strip()
                command = [sys.executable, "-c", CLIENT, port, str(N)]
                done = subprocess.run(command, env=paths, capture_output=True, text=True, check=True)
            finally:
                server.kill()
        found: dict[str, object] = json.loads(done.stdout)
        return found

    found = benchmark.pedantic(asked, rounds=1)
    assert (found["n_answered"], found["most_in_flight"]) == (N, 64)
    benchmark.extra_info.update(found, n_presentations=N, seconds_each=seconds_each)
