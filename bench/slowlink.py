"""A TCP connection that is as slow as one to another house: each byte arrives a little later.

    python -m bench.slowlink --listen 11143 --to 127.0.0.1:1143 --round-trip-ms 30

Only time is added: bytes keep their order, nothing is lost, and the rate is not limited. A
process of its own, so that it slows nobody but those who talk through it.

Imports: nothing of ours.
"""

import argparse
import asyncio


async def pump(reader, writer, delay_seconds):
    """Pass on what comes, each piece `delay_seconds` after it came, until the end."""
    loop = asyncio.get_running_loop()
    pieces = asyncio.Queue()

    async def deliver():
        while (piece := await pieces.get()) is not None:
            due, data = piece
            await asyncio.sleep(due - loop.time())
            writer.write(data)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    try:
        while data := await reader.read(65536):
            pieces.put_nowait((loop.time() + delay_seconds, data))
        pieces.put_nowait(None)
        await delivery
    except ConnectionError:
        pass  # one side is gone; closing tells the other
    finally:
        delivery.cancel()
        writer.close()


async def serve(listen, target, delay_seconds):
    async def connected(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(*target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer, delay_seconds),
                             pump(far_reader, writer, delay_seconds))

    server = await asyncio.start_server(connected, '127.0.0.1', listen)
    async with server:
        await server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description='Adds a delay to TCP connections.')
    parser.add_argument('--listen', type=int, required=True, metavar='PORT')
    parser.add_argument('--to', required=True, metavar='HOST:PORT')
    parser.add_argument('--round-trip-ms', type=float, required=True)
    options = parser.parse_args()
    host, _, port = options.to.rpartition(':')
    asyncio.run(serve(options.listen, (host, int(port)), options.round_trip_ms / 2000))


if __name__ == '__main__':
    main()
