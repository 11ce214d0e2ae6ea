"""Lets clients that know TCP only reach a Unix socket: forward.py SOCKET. It listens on a port of the loopback interface,
prints its number, and forwards each connection, until it is ended."""

import asyncio
import sys


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main(socket):
    async def forward(reader, writer):
        try:
            there_reader, there_writer = await asyncio.open_unix_connection(socket)
        except OSError as error:
            print(f"{socket}: {error}", file=sys.stderr)
            writer.close()
            return
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(sys.argv[1]))
