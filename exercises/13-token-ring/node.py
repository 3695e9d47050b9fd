"""A station of the logical ring, written from the README's specification alone, with nothing but Python's library.

    python3 node.py --id 2 --config ../../config/token-ring.ini --messages messages.txt

Numbers behind a § are the specification's. It prints what node.ts prints; notes go to stderr.
"""

import argparse, asyncio, configparser, re, struct, sys, time

HEADER, MAX_FRAME = struct.Struct(">IIBI"), 1_048_674
T, A, F = 0x80, 0x40, 0x20
MESSAGE, TAKEN, TURN, CLAIM, FINISH, PROBE = 0, A, T, T | F, F, A | F
NUMBERS = {MESSAGE: 5, TAKEN: 5, TURN: 3, CLAIM: 2, FINISH: 0, PROBE: 1}
BROKEN = (ValueError, OSError, EOFError, asyncio.TimeoutError)


def say(line, stream=sys.stdout):
    print(re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda c: f"\\x{ord(c[0]):02x}", line), file=stream, flush=True)


def valid(turn):
    """§6.1: of two turns the one for which this is greater."""
    return turn[0], -turn[1], turn[2]


def frame(kind, source, destination, *data):
    body = " ".join(map(str, data)).encode()
    return HEADER.pack(source, destination, kind, len(body)) + body


async def read_frame(reader):
    """kind, source, numbers, destination, text; ValueError where the frame breaks §3 or §4."""
    source, destination, flags, length = HEADER.unpack(await reader.readexactly(HEADER.size))
    kind = flags & (T | A | F)
    if kind not in NUMBERS or HEADER.size + length > MAX_FRAME:
        raise ValueError(f"no frame has flags {flags:#04x} and length {length}")
    data = (await reader.readexactly(length)).decode()
    count = NUMBERS[kind]
    pattern = " ".join(["(0|[1-9][0-9]{0,15})"] * count) + (" " if count == 5 else r"\Z")
    found = re.match(pattern, data)
    numbers = [int(number) for number in found.groups()] if found else [2**53]
    if any(number >= 2**53 for number in numbers):
        raise ValueError("the data are not what the flags announce")
    return kind, source, numbers, destination, data[found.end() :]


class Station:
    def __init__(self, own, stations, lines):
        ids = list(stations)
        self.id, self.stations, self.lines, self.tasks = own, stations, lines, set()
        self.order = ids[ids.index(own) + 1 :] + ids[: ids.index(own) + 1]
        self.successor = self.writer = None
        self.joined = self.saw = self.ended = self.quiet = self.refused = False
        self.latest, self.promised, self.known, self.seen = (0, 0, 0), 0, 0, time.monotonic()
        self.hold = None  # [since when, messages sent in it]
        self.out = None  # the message under way: [generation, issuer, round, number, attempt], destination, text
        self.out_since = 0.0
        self.number, self.taken = 0, {}
        self.claims, self.claimed, self.passed = 0, 0.0, None

    # §2: links

    def probe(self, to):
        return frame(PROBE, self.id, to, self.known)

    def hear(self, generation):
        if generation > self.known:
            self.saw = self.joined  # the turn that the probe by which it joins tells of may be lost
            self.known, self.joined, self.seen = generation, True, time.monotonic()

    async def predecessor(self, reader, writer):
        known = False
        try:
            while not self.ended:
                kind, source, numbers, destination, text = await asyncio.wait_for(read_frame(reader), 3.2)
                if kind != PROBE and not known:
                    raise ValueError("it does not begin with a probe")
                if kind != PROBE:
                    self.arrived(kind, source, numbers, destination, text)
                    continue
                if destination != self.id or source not in self.stations:
                    raise ValueError(f"a probe from {source} to {destination}")
                known = True
                self.hear(numbers[0])
                writer.write(self.probe(source))
        except BROKEN as error:
            say(f"a link was closed: {error!r}", sys.stderr)
        writer.close()

    async def link(self, to, answered):
        """Runs as long as the station there answers; the first answer is reported."""
        writer = None
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(*self.stations[to]), 0.5)
            while True:
                writer.write(self.probe(to))
                kind, source, numbers, _, _ = await asyncio.wait_for(read_frame(reader), 0.8)
                if (kind, source) != (PROBE, to):
                    raise ValueError("that is no answer to a probe")
                self.hear(numbers[0])
                if not answered.done():
                    answered.set_result(writer)
                await asyncio.sleep(0.25)
        except BROKEN:
            if not answered.done():
                answered.set_result(None)
            if writer:
                writer.close()
            if writer and self.writer is writer:
                self.successor = self.writer = None

    async def search(self):
        while True:
            for candidate in self.order if self.joined else self.order[:1]:
                if candidate == self.successor:
                    break
                answered = asyncio.get_running_loop().create_future()
                task = asyncio.create_task(self.link(candidate, answered))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
                if writer := await answered:
                    if self.writer:
                        self.writer.close()
                    self.successor, self.writer = candidate, writer
                    say(f"successor {candidate}", sys.stderr)
                    self.send_again()
                    break
            await asyncio.sleep(0.5 if self.writer else 0.05)

    def send(self, *parts):
        if self.writer:
            self.writer.write(frame(*parts))

    # What arrives: §6 to §9

    def arrived(self, kind, source, numbers, destination, text):
        if kind == TURN:
            self.on_turn(*numbers)
        elif kind == CLAIM:
            self.on_claim(source, *numbers)
        elif kind == FINISH and source == 0:
            self.send(FINISH, 0, 0)
            self.ended = True
        elif kind in (MESSAGE, TAKEN):
            self.on_message(kind, source, numbers, destination, text)
        self.tick()

    def on_turn(self, generation, issuer, round):
        turn = (generation, issuer, round)
        if generation < max(self.promised, self.known) or valid(turn) <= valid(self.latest):
            return
        self.report("unconfirmed")
        self.latest, self.known, self.joined, self.saw = turn, generation, True, True
        self.hold = [time.monotonic(), 0]
        say(f"turn generation={generation} issuer={issuer} round={round}", sys.stderr)

    def on_claim(self, claimant, generation, attempt):
        self.refused = self.refused or generation < self.promised
        not_lost = self.hold or (self.saw and time.monotonic() < self.seen + 2.5)
        if generation <= self.known or generation < self.promised or claimant not in self.stations or not_lost:
            return
        self.promised = generation
        if claimant == self.id:
            self.on_turn(generation, self.id, 1)
        elif claimant < self.id and self.passed != (claimant, attempt):
            self.passed = (claimant, attempt)
            self.send(CLAIM, claimant, claimant, generation, attempt)

    def on_message(self, kind, source, numbers, destination, text):
        generation, turn, number = numbers[0], tuple(numbers[:3]), numbers[3]
        if generation < max(self.promised, self.known) or source not in self.stations:
            return
        ids = list(self.stations)
        if (*valid(turn), ids.index(source)) < (*valid(self.latest), ids.index(self.id)):
            return
        if self.writer and source in self.order[: self.order.index(self.successor)]:
            return
        self.hear(generation)
        self.seen, self.saw, self.quiet = time.monotonic(), self.joined, False
        was_there = turn[1] == self.latest[1] if generation == self.latest[0] else generation == self.promised
        if destination == self.id and was_there:
            kind = TAKEN
            if self.taken.get(source, ((), 0)) < (valid(turn), number):
                self.taken[source] = (valid(turn), number)
                say(f"received from {source}: {text}")
        if source != self.id:
            self.send(kind, source, destination, *numbers, text)
        elif self.out and numbers[:4] == self.out[0][:4]:
            sure = self.out[0][4] == 1 or destination not in self.stations
            self.report("delivered" if kind == TAKEN else "undelivered" if sure else "unconfirmed")

    # What it does by itself, looked at every 5 ms

    def tick(self):
        now = time.monotonic()
        if self.writer is None or self.ended:
            return
        if self.hold:
            return self.use_turn(now)
        may_begin = self.refused or self.id == min(self.stations)
        due = self.seen + 2.5 if self.joined else 0 if may_begin else now + 1
        if now >= max(due, self.claimed + 0.25):
            self.claimed, self.claims = now, self.claims + 1
            self.send(CLAIM, self.id, self.id, max(self.promised, self.known + 1), self.claims)

    def use_turn(self, now):
        if self.out and now >= self.out_since + 1:
            self.send_again()
        if self.out:
            return
        if self.lines and self.hold[1] < 10:
            self.hold[1], self.number = self.hold[1] + 1, self.number + 1
            self.out = [*self.latest, self.number, 0], *self.lines.pop(0)
            return self.send_again()
        if self.quiet and now < self.hold[0] + 0.005:
            return
        ids, (generation, issuer, round) = list(self.stations), self.latest
        wraps = ids.index(self.successor) <= ids.index(self.id)
        self.send(TURN, self.id, self.successor, generation, issuer, round + wraps)
        self.hold, self.quiet, self.seen = None, True, now

    def send_again(self):
        if not self.out or self.out[0][4] == 5:
            return self.report("unconfirmed")
        numbers, destination, text = self.out
        numbers[4] += 1
        self.out_since = self.seen = time.monotonic()
        self.quiet = False
        self.send(MESSAGE, self.id, destination, *numbers, text)

    def report(self, outcome):
        if self.out:
            say(f"{outcome} to {self.out[1]}: {self.out[2]}")
        self.out = None

    async def run(self):
        await asyncio.start_server(self.predecessor, *self.stations[self.id])
        say("listening on tcp://%s:%d" % self.stations[self.id])
        self.tasks.add(asyncio.create_task(self.search()))
        while not self.ended:
            self.tick()
            await asyncio.sleep(0.005)
        for self.out in [(None, *line) for line in self.lines]:
            self.report("unsent")
        if self.writer:
            await self.writer.drain()
            self.writer.close()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--id", type=int, required=True)
    options.add_argument("--config", required=True)
    options.add_argument("--messages")
    given = options.parse_args()
    config = configparser.ConfigParser()
    config.read(given.config)
    stations = {int(name[4:]): (config[name]["host"], config.getint(name, "port")) for name in config.sections()}
    lines = []
    if given.messages:
        with open(given.messages, encoding="utf-8", newline="\n") as file:
            lines = [(int(id), text) for id, text in (line.rstrip("\n").split(" ", 1) for line in file)]
    try:
        asyncio.run(Station(given.id, stations, lines).run())
    except KeyboardInterrupt:
        pass


main()
