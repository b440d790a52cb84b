"""Cables: the TCP connections of each client with the server, which can be cut, stalled and slow.

Imports: nothing of ours.
"""

import asyncio
import threading


class Cable:
    """One client's way to the server, through a port of its own."""

    def __init__(self, cables, target):
        self._cables = cables
        self._target = target
        self._writers = set()
        self._server = None
        self._delay = 0.0
        self._flows = asyncio.Event()
        self._flows.set()
        self._answers = asyncio.Event()
        self._answers.set()
        self.port = None

    # called in the thread of the cables

    async def _open(self):
        self._server = await asyncio.start_server(self._connected, '127.0.0.1', self.port or 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _connected(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(self._carry(reader, far_writer, self._flows),
                                 self._carry(far_reader, writer, self._answers))
        finally:
            self._writers -= ends

    async def _carry(self, reader, writer, flows):
        try:
            while data := await reader.read(65536):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await flows.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # one side is gone; closing tells the other
        finally:
            writer.transport.abort()

    async def _set(self, cut, flows, delay, answers=None):
        self._delay = delay
        for event, goes_on in ((self._flows, flows),
                               (self._answers, flows if answers is None else answers)):
            if goes_on:
                event.set()
            else:
                event.clear()
        if cut and self._server is not None:
            self._server.close()
            self._server = None
            for writer in self._writers:
                writer.transport.abort()
        elif not cut and self._server is None:
            await self._open()

    # called in any

    def cut(self):
        """Break what is connected, and let nobody connect."""
        self._cables.call(self._set, True, True, 0.0)

    def stall(self):
        """Let nothing through, and tell nobody."""
        self._cables.call(self._set, False, False, 0.0)

    def mute(self):
        """Let what the client says through, and nothing of what the server answers."""
        self._cables.call(self._set, False, True, 0.0, False)

    def slow(self, seconds):
        """Have each piece arrive so much later."""
        self._cables.call(self._set, False, True, seconds)

    def heal(self):
        """Let everything through again."""
        self._cables.call(self._set, False, True, 0.0)


class Cables:
    """A thread that carries what goes through the cables."""

    def __init__(self):
        self._all = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        for cable in self._all:
            cable.cut()
        self.call(self._end_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end_all(self):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted is closed

    def add(self, target):
        """A new Cable to that (host, port), in order."""
        cable = Cable(self, target)
        self._all.append(cable)
        self.call(cable._open)
        return cable

    def call(self, function, *args):
        """Have that coroutine function run in the thread, and wait for it."""
        asyncio.run_coroutine_threadsafe(function(*args), self._loop).result(10)
