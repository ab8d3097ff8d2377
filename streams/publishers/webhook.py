"""Alerts to a web address of the user's: signed, each at least once, in order, for as long as it takes."""

import asyncio
import hmac
import logging
import random
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from http import HTTPStatus
from typing import Final, NamedTuple

import aiohttp

from streams.clock import Clock
from streams.metrics import Metrics
from streams.problems import connection_fault

SIGNATURE: Final = "X-LeadPulse-Signature"
AT_ONCE: Final = 4
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 300.0
LONGEST_ASKED_SECONDS: Final = 3600.0
"""So long at most is waited where the receiver asks for a pause."""
STOP_SECONDS: Final = 2.0

DELIVERED: Final = "delivered"
REFUSED: Final = "refused"
FAILED: Final = "failed"

_LOG = logging.getLogger("leadpulse")
_TRY_AGAIN: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


class Notice(NamedTuple):
    """An alert to deliver: the JSON of its record.

    Notices of one shard and key arrive in the order in which they were offered; `id` stays the same
    however often it is sent, and a shard has each once.
    """

    shard: int
    id: str
    body: bytes
    key: str = ""


_Queue = tuple[int, str]


def signature(secret: str, unix_seconds: int, body: bytes) -> str:
    """Return the header that proves who sent `body`, and when.

    `t=<seconds since 1970>,v1=<hex HMAC-SHA256 of "<t>.<body>">`, keyed with the secret in UTF-8.
    """
    signed = f"{unix_seconds}.".encode() + body
    return f"t={unix_seconds},v1={hmac.new(secret.encode(), signed, sha256).hexdigest()}"


def asked_pause_seconds(header: str | None, now_ms: int) -> float:
    """Return how long a `Retry-After` asks to wait, at most an hour; 0 if it asks for nothing.

    Source: RFC 9110, section 10.2.3: seconds, or a date.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        # A number of many digits would be no float.
        seconds = float(text[:9])
    else:
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return 0.0
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        seconds = (at - datetime.fromtimestamp(now_ms / 1000, UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_ASKED_SECONDS)


class _TryAgainError(Exception):
    """A delivery failed that may succeed later; `asked_seconds` is what the receiver asks to wait."""

    def __init__(self, got: str, asked_seconds: float = 0.0) -> None:
        super().__init__(got)
        self.asked_seconds = asked_seconds


class _Answer(NamedTuple):
    """What the receiver said."""

    status: int
    retry_after: str | None


class Webhook:
    """Posts every notice until the receiver took or refused it.

    An answer of 2xx takes it. 408, 429, 5xx and what is no answer are tried again, with pauses that
    grow to five minutes, or as `Retry-After` says; anything else refuses it: that is logged once and
    it is given up. At most one notice of a key is on its way, and four in all.

    Args:
        url: Where to; may hold user and password. Never logged.
        shown_url: What the log says of it.
        secret: Signs what is sent.
        timeout_seconds: How long an answer may take.
        metrics: Where `leadkpi_publisher_up` and the deliveries are counted.
        clock: Tells when something was signed.
        version: Of this software, for the header User-Agent.
        delivered: Called with shard and id of what was taken or refused: it need not be offered again.
        on_crash: Called when sending ended by a programming error, never for an outage.
        first_pause_seconds: How long to wait after a first failure; twice as long after each other.
    """

    def __init__(
        self,
        url: str,
        shown_url: str,
        secret: str,
        *,
        timeout_seconds: float,
        metrics: Metrics,
        clock: Clock,
        version: str,
        delivered: Callable[[int, str], None],
        on_crash: Callable[[BaseException], None],
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._url = url
        self._shown_url = shown_url
        self._secret = secret
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._metrics = metrics
        self._clock = clock
        self._agent = f"LeadPulse/{version}"
        self._delivered = delivered
        self._on_crash = on_crash
        self._first_pause_seconds = first_pause_seconds
        self._queues: dict[_Queue, deque[Notice]] = {}
        self._tasks: dict[_Queue, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._places = asyncio.Semaphore(AT_ONCE)
        self._stopping = asyncio.Event()
        self._has_failed = False
        self._has_refused = False
        for outcome in (DELIVERED, REFUSED, FAILED):
            # A series that begins at its first event would show no increase by it.
            metrics.webhook_deliveries.labels(outcome)

    def __len__(self) -> int:
        """Return how many notices wait or are on their way."""
        return sum(map(len, self._queues.values()))

    async def start(self) -> None:
        """Begin to send; the receiver need not be there yet."""
        self._session = aiohttp.ClientSession(
            timeout=self._timeout,
            headers={"User-Agent": self._agent},
            # What a receiver wants remembered is none of ours.
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        for key in self._queues:
            self._begin(key)

    async def stop(self) -> None:
        """Wait up to two seconds for what is on its way, and end; the rest has to be offered again."""
        self._stopping.set()
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks)
        if self._session is not None:
            await self._session.close()

    def offer(self, notice: Notice) -> None:
        """Take a notice to deliver; one that waits already is not taken twice."""
        key = notice.shard, notice.key
        queue = self._queues.setdefault(key, deque())
        if any(waiting.id == notice.id for waiting in queue):
            return
        queue.append(notice)
        if self._session is not None and not self._stopping.is_set():
            self._begin(key)

    def drop(self, notice: Notice) -> None:
        """Forget a notice that is given up; a post of it that is under way is not called back."""
        queue = self._queues.get((notice.shard, notice.key), deque())
        for waiting in queue:
            if waiting.id == notice.id:
                queue.remove(waiting)
                return

    def drop_shard(self, shard: int) -> None:
        """Forget the notices of a shard that was closed: its next owner sends them."""
        for key in [key for key in self._queues if key[0] == shard]:
            del self._queues[key]
            if (task := self._tasks.pop(key, None)) is not None:
                task.cancel()

    # ------------------------------------------------------------------------- one key

    def _begin(self, key: _Queue) -> None:
        if key not in self._tasks:
            task = asyncio.create_task(self._send_all(key), name="webhook")
            self._tasks[key] = task
            task.add_done_callback(self._end)

    def _end(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(error)

    async def _send_all(self, key: _Queue) -> None:
        queue = self._queues[key]
        while queue:
            notice = queue[0]
            if await self._send(notice, queue):
                if _is_first(notice, queue):
                    queue.popleft()
                self._delivered(notice.shard, notice.id)
            elif self._stopping.is_set():
                return
        # Nothing waits from here to the end, so no notice can come in between.
        del self._queues[key], self._tasks[key]

    async def _send(self, notice: Notice, queue: deque[Notice]) -> bool:
        """Send until the receiver has decided; False if all ends before, or the notice was dropped."""
        pause_seconds = self._first_pause_seconds
        while True:
            try:
                async with self._places:
                    # Others may have been on their way for long.
                    if self._stopping.is_set() or not _is_first(notice, queue):
                        return False
                    refusal = await self._post(notice)
            except _TryAgainError as error:
                self._fail(str(error))
                # Chance keeps workers that failed together from coming back together.
                own_seconds = pause_seconds * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
                await self._pause(max(own_seconds, error.asked_seconds))
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
            else:
                self._succeed(notice, refusal)
                return True

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _post(self, notice: Notice) -> str | None:
        """Send once; return why it was refused, None if it was taken.

        Raises:
            _TryAgainError: if neither.
        """
        session = self._session
        if session is None:
            msg = "webhook: expected to be started, got a notice to send before"
            raise RuntimeError(msg)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": notice.id,
            SIGNATURE: signature(self._secret, self._clock.now_ms() // 1000, notice.body),
        }
        answer = await self._answer(session, notice.body, headers)
        got = f"status {answer.status}"
        if answer.status in _TRY_AGAIN or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _TryAgainError(got, asked_pause_seconds(answer.retry_after, self._clock.now_ms()))
        is_taken = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
        return None if is_taken else got

    async def _answer(
        self, session: aiohttp.ClientSession, body: bytes, headers: dict[str, str]
    ) -> _Answer:
        """Post once and return what was answered.

        Raises:
            _TryAgainError: if nothing that can be read was.
        """
        try:
            # Whoever answers with another address would get what is signed for this one.
            async with session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                return _Answer(response.status, response.headers.get("Retry-After"))
        except Exception as error:
            # All of this is the client's own code at work on what a stranger sent: whatever it makes
            # of that, counting goes on.
            raise _TryAgainError(_fault(error)) from error

    # ------------------------------------------------------------------------- telling

    def _fail(self, got: str) -> None:
        self._metrics.webhook_deliveries.labels(FAILED).inc()
        self._metrics.publisher_up.labels("webhook").set(0)
        if not self._has_failed:
            _LOG.warning(
                "webhook at %s: expected status 2xx, got %s; alerts wait and are sent again",
                self._shown_url,
                got,
            )
        self._has_failed = True

    def _succeed(self, notice: Notice, refusal: str | None) -> None:
        outcome = DELIVERED if refusal is None else REFUSED
        self._metrics.webhook_deliveries.labels(outcome).inc()
        self._metrics.publisher_up.labels("webhook").set(1)
        if self._has_failed:
            _LOG.warning("webhook recovered")
        self._has_failed = False
        if refusal is not None and not self._has_refused:
            _LOG.warning(
                "webhook at %s: expected status 2xx, got %s; the alert %s is given up, and so are "
                "others while it answers so",
                self._shown_url,
                refusal,
                notice.id,
            )
        self._has_refused = refusal is not None


def _is_first(notice: Notice, queue: deque[Notice]) -> bool:
    return bool(queue) and queue[0] is notice


def _fault(error: BaseException) -> str:
    # The text of other errors may hold the address, and that a password.
    if isinstance(error, OSError | TimeoutError | aiohttp.ClientConnectionError):
        return connection_fault(error)
    return type(error).__name__
