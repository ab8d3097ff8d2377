"""Read the current numbers of every channel from Redis, and again when one changes.

LEADPULSE_REDIS=redis://localhost:6379/0 python redis_reader.py [window] [basis]
"""

import contextlib
import json
import os
import sys
import time
from typing import Any
from urllib.parse import unquote

import redis

URL = os.environ.get("LEADPULSE_REDIS", "redis://localhost:6379/0")
WINDOW = sys.argv[1] if len(sys.argv) > 1 else "last_24h"  # or 1d@previous: yesterday
BASIS = sys.argv[2] if len(sys.argv) > 2 else "period"
REREAD_SECONDS = 30

Client = Any  # redis.Redis, whose types do not know of decode_responses


def hash_names(client: Client) -> list[str]:
    """Return the hashes of all channels, by the index: its parts are encoded as those of names."""
    scopes = [member.split("|") for member in client.zrange("leadkpi:v1:scopes", 0, -1)]
    return [
        f"leadkpi:v1:{BASIS}:{WINDOW}:{channel}:_all"
        for channel, campaign in sorted(scopes)
        if campaign == "_all" and channel != "_all"
    ]


def line(name: str, fields: dict[str, str]) -> str:
    """Return the CPL of a hash, or why there is none."""
    channel = unquote(name.split(":")[4])
    if not fields:
        return f"{channel:<14} nothing in this window"
    # Only defined KPIs have a field; why the others have none stands in `_undefined`.
    cpl = fields.get("cpl") or json.loads(fields["_undefined"])["cpl"]
    return f"{channel:<14} {fields.get('leads', '0'):>5} leads  CPL {cpl}"


def show(client: Client, names: list[str], shown: dict[str, str]) -> None:
    """Print what has changed; the fields of one HGETALL agree with each other."""
    for name in names:
        fields = client.hgetall(name)
        numbers = line(name, fields)
        if shown.get(name) != numbers:
            shown[name] = numbers
            # Everything that arrived before that instant is counted.
            print(f"{numbers}  complete until {fields.get('_complete_until', '?')}", flush=True)


def main() -> None:
    """Show all, then what is announced; and all again now and then."""
    client: Client = redis.Redis.from_url(URL, decode_responses=True)
    shown: dict[str, str] = {}
    with client.pubsub(ignore_subscribe_messages=True) as updates:
        updates.subscribe("leadkpi:v1:updates")
        while True:
            names = hash_names(client)
            show(client, names, shown)
            # An announcement is a hint that may be lost: now and then all is read again.
            until = time.monotonic() + REREAD_SECONDS
            while (left := until - time.monotonic()) > 0:
                update = updates.get_message(timeout=left)
                if update and update["data"] in names:
                    show(client, [update["data"]], shown)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
