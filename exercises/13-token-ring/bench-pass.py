"""A yardstick: one byte that goes round N TCP connections on loopback, in Python's asyncio. Prints rounds a second.

    python3 bench-pass.py 4 1000
"""

import asyncio, itertools, socket, sys, time

rounds, successors, numbers = 0, [], itertools.count()


class Station(asyncio.Protocol):
    """The receiving end of a connection (they are made one after the other): what comes goes out on the next one."""

    def connection_made(self, transport):
        self.index = next(numbers)

    def data_received(self, data):
        global rounds
        rounds += self.index == 0
        successors[(self.index + 1) % len(successors)].write(data)


async def main(stations, limit):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Station, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for _ in range(stations):
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        successors.append(transport)
    await asyncio.sleep(0.1)
    start = time.monotonic()
    successors[0].write(b"T")
    await asyncio.sleep(limit)
    print(f"{rounds / (time.monotonic() - start):.1f}")


asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]) / 1000))
