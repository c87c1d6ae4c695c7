"""A process for discovery tests: runs one Discovery and prints JSON lines; ends when stdin does.

Its one argument is JSON: {"seed", "port", "interfaces", "mdns", "beacon", "window": [n, port] or
null, "find": n or null}. Lines of stdin are JSON as well: {"port": n}, {"window": [n, port] | null}.
"""

import asyncio
import json
import sys
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2psync.core.ids import DeviceID
from p2psync.net.beacon import Beacon
from p2psync.net.discovery import Discovery, Sighting


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


async def main(options: dict[str, Any]) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes([options["seed"]]) * 32)
    public = key.public_key().public_bytes_raw()
    device: DeviceID = Beacon(public, bytes(8)).device
    started = time.monotonic()

    def after() -> float:
        return round(time.monotonic() - started, 3)

    def on_sighting(sighting: Sighting) -> None:
        say(
            device=sighting.device.hex() if sighting.device else None,
            addresses=sighting.addresses,
            source=sighting.source,
            nameplate=sighting.nameplate,
            after=after(),
        )

    discovery = Discovery(
        device,
        public,
        key.sign,
        interfaces=options.get("interfaces"),
        on_sighting=on_sighting,
        on_problem=lambda source, sentence: say(problem=sentence, of=source, after=after()),
        mdns=options.get("mdns", True),
        beacon=options.get("beacon", True),
    )
    if options.get("port"):
        discovery.announce(options["port"])
    if options.get("window"):
        discovery.announce_pairing(*options["window"])
    running = asyncio.create_task(discovery.run())
    say(started=device.hex())
    if options.get("find"):
        say(found=await discovery.find_pairing(options["find"], 10), after=after())
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        if "port" in command:
            discovery.announce(command["port"])
        elif command["window"]:
            discovery.announce_pairing(*command["window"])
        else:
            discovery.withdraw_pairing()
    running.cancel()
    await asyncio.wait([running])
    if not running.cancelled():
        running.result()
    say(ended=True)


asyncio.run(main(json.loads(sys.argv[1])))
