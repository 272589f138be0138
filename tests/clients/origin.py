"""An origin in a process of its own: a few bytes for `/`, a megabyte for `/large`.

Prints its port, and serves until its standard input ends.
"""

import asyncio
import sys

PIECE = b"x" * 50_000
PIECES = {b"/large": 20}


async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = head.lower().split(b"\r\n")
            length = [field[15:] for field in fields if field.startswith(b"content-length:")]
            await reader.readexactly(int(length[0]) if length else 0)
            pieces = PIECES.get(head.split(b" ", 2)[1], 0)
            size = pieces * len(PIECE) or 5
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            if not pieces:
                writer.write(b"hello")
            for _ in range(pieces):
                writer.write(PIECE)
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
