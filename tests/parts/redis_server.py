"""A real redis-server without persistence."""

import shutil
import socket

from tests.parts.install import MissingPartError
from tests.parts.server import Server


class RedisServer(Server):
    """One redis-server on `url`; a killed one comes back on the same port, empty.

    With `password` clients must give it; `url` contains it.

    Raises:
        MissingPartError: if redis-server is not on PATH (`make parts`).
    """

    name = "redis"

    def __init__(self, password: str | None = None) -> None:
        if not shutil.which("redis-server"):
            msg = "redis-server is not on PATH: run `make parts`"
            raise MissingPartError(msg)
        super().__init__()
        self.password = password

    @property
    def url(self) -> str:
        """The URL for clients."""
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}{self.host}:{self.port}/0"

    def command(self) -> list[str]:
        """Return redis-server with nothing written to disk."""
        command = ["redis-server", "--bind", self.host, "--port", str(self.port)]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.directory)]
        if self.password:
            command += ["--requirepass", self.password]
        return command

    def answers(self) -> bool:
        """Send PING; an answer that asks for the password is one too."""
        with socket.create_connection((self.host, self.port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
