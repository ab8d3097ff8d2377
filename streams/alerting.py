"""The alerts of one shard: looked for once a minute, and told in the commit that they rest on.

Where each rule and scope stands is a row; its records, the row and the positions of what was counted
are of one transaction, so that every alert is told once.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from kpis.alert_records import AlertValue, alert_record, alert_value
from kpis.alert_rules import Rule
from kpis.alerts import QUIET, UPDATED, Alert, Finding, Standing, gone, is_past, step
from kpis.calendar import MINUTE_MS
from kpis.decomposition import CampaignTold
from kpis.detector import Detector
from kpis.facts import Scope
from kpis.spans import Spans
from kpis.surroundings import Outlook
from streams.messages import OVERALL_SHARD, CampaignsTold
from streams.outbox import Outbox
from streams.publishers import AlertView
from streams.publishers.webhook import Notice
from streams.settings import Settings
from streams.stages import AlertNews, Context, Progress, Sender

log = logging.getLogger(__name__)

ALERT_ROW: Final = "alert"
NOTICE_ROW: Final = "notice"
ROWS: Final = frozenset({ALERT_ROW, NOTICE_ROW})

MOST_BEHIND_MS: Final = 2 * MINUTE_MS
"""Where more is still to be counted, nothing is judged: a backlog of leads is no outage."""

EVALUATION_SECONDS: Final = 0.02
"""So long a flush looks for alerts at most: the loop has other work."""

LATELY_MS: Final = 24 * 60 * MINUTE_MS
"""So long a resolved alert is still shown. Source: contract, section 7."""

REMEMBERED_MS: Final = 5 * MINUTE_MS
"""So long what a shard told of its campaigns counts."""

MOST_NOTICES: Final = 1_000
"""So many alerts of a shard wait for a webhook that does not answer."""

_encode = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder(tuple[str, str, str | None, str | None]).decode


# Where a rule and scope stand, and the value of the last record if it is still shown.
_decode_row = msgspec.msgpack.Decoder(tuple[Standing, bytes | None]).decode
_decode_notice = msgspec.msgpack.Decoder(tuple[str, bytes]).decode


class _Told(NamedTuple):
    """What a shard told of its campaigns, and when."""

    at_ms: int
    campaigns: Sequence[CampaignTold]


class Alerting:
    """Watches the scopes of one shard.

    Args:
        context: The shard and its tables; of the table `windows` only rows of `ROWS` are touched.
        settings: The zone and currency of records, and whether a webhook is told.
        rules: What to look for.
        outlook: What is counted.
        spans: Where windows lie.
        watched: Returns the scopes to look at.
    """

    def __init__(
        self,
        context: Context,
        settings: Settings,
        rules: Iterable[Rule],
        outlook: Outlook,
        spans: Spans,
        watched: Callable[[], Iterable[Scope]],
    ) -> None:
        self._shard = context.partition
        self._clock = context.deployment.clock
        self._topic = context.deployment.topics.alerts
        self._rows = context.tables["windows"]
        self._tally = context.tally
        self._zone = settings.time_zone
        self._currency = settings.currency
        self._has_webhook = settings.alerts.has_webhook
        self._rules = {rule.name: rule for rule in rules if rule.enabled}
        self._detector = Detector(self._rules.values(), outlook, spans)
        self._watched = watched
        topics, partitions = context.deployment.topics, context.deployment.partitions
        self._sender = Sender(self._shard, "merge", topics.deltas, partitions)
        self._standings: dict[Scope, dict[str, Standing]] = {}
        self._values: dict[tuple[Scope, str], bytes | None] = {}
        self._queue: deque[Scope] = deque()
        self._queued: dict[Scope, int] = {}
        self._ticked_minute = 0
        self._candidates: list[Scope] = []
        self._has_evaluated = False
        self._told: dict[int, _Told] = {}
        self._notices: dict[str, Notice] = {}
        self._has_delivered = False
        self._news = AlertNews.none()
        self.version = ""

    def restore(self, key: bytes, row: bytes) -> None:
        """Take up a row of the table."""
        kind, *rest = msgspec.msgpack.decode(key, type=list[str | None])
        if kind == NOTICE_ROW:
            record_key, body = _decode_notice(row)
            notice_id = str(rest[0])
            if self._has_webhook:
                self._notices[notice_id] = Notice(self._shard, notice_id, body, record_key)
            else:
                self._rows.delete(key)
            return
        _, rule, channel, campaign_id = _decode_key(key)
        scope = Scope(channel, campaign_id)
        standing, value = _decode_row(row)
        self._standings.setdefault(scope, {})[rule] = standing
        self._values[scope, rule] = value

    def begin(self, version: str) -> None:
        """Show what was taken up, and wait for the next minute: this one may have been looked at."""
        self.version = version
        self._ticked_minute = self._clock.now_ms() // MINUTE_MS
        for (scope, rule), value in self._values.items():
            if value is not None:
                self._show(scope, rule, value)
        self._news.notices.extend(self._notices.values())

    # ------------------------------------------------------------------------- told

    def campaigns_told(self, told: CampaignsTold) -> None:
        """Remember for a while what a shard told of its campaigns."""
        self._told[told.shard] = _Told(self._clock.now_ms(), told.campaigns)

    def delivered(self, notice_id: str) -> None:
        """Take note that a notice has reached the webhook, or that it was given up."""
        if notice_id in self._notices:
            # At once: the next commit may be the last, and come before the next `flush`.
            self._drop_notice(notice_id)
            self._has_delivered = True

    # ------------------------------------------------------------------------- a minute

    def is_due(self) -> bool:
        """Tell whether there is something left to look at or to write."""
        return bool(self._queue or self._candidates or self._has_delivered)

    def tick(self, until_ms: int | None) -> None:
        """Begin a minute, if it is a new one, unless too much is still to be counted."""
        now_ms = self._clock.now_ms()
        minute = now_ms // MINUTE_MS
        if minute == self._ticked_minute:
            return
        self._ticked_minute = minute
        self._told = {
            shard: told
            for shard, told in self._told.items()
            if now_ms - told.at_ms <= REMEMBERED_MS
        }
        self._age(now_ms)
        if until_ms is None or now_ms - until_ms > MOST_BEHIND_MS:
            self._queue.clear()
            self._queued.clear()
            self._candidates.clear()
            return
        if not self._rules and not self._standings:
            return
        scopes = {*self._watched(), *self._standings} - self._queued.keys()
        # Campaigns first: they explain what is found about the others.
        self._queue.extend(sorted(scopes, key=_is_wide))
        self._queued |= dict.fromkeys(scopes, minute)

    def flush(self, outbox: Outbox, newest_minute: int) -> None:
        """Look at scopes for a while, and write what is to be told of them."""
        self._has_delivered = False
        end = self._clock.monotonic_seconds() + EVALUATION_SECONDS
        campaigns: list[Scope] = []
        while self._queue:
            scope = self._queue.popleft()
            waited = self._ticked_minute - self._queued.pop(scope)
            if _is_wide(scope):
                self._tell_campaigns(outbox, campaigns, newest_minute)
                campaigns = []
            else:
                campaigns.append(scope)
            self._evaluate(scope, waited, outbox)
            if self._clock.monotonic_seconds() >= end:
                break
        self._take_candidates(campaigns)
        if not self._queue:
            self._tell_campaigns(outbox, [], newest_minute)

    def take(self) -> AlertNews:
        """Return what is to be shown once the records of the last `flush` are committed."""
        news, self._news = self._news, AlertNews.none()
        return news

    # ------------------------------------------------------------------------- campaigns

    def _take_candidates(self, campaigns: Sequence[Scope]) -> None:
        """Keep those of some campaigns that spent most above their usual."""
        if not campaigns:
            return
        told = self._detector.campaigns_told(campaigns, self._ticked_minute)
        self._candidates.extend(Scope(each.channel, each.campaign_id) for each in told)

    def _tell_campaigns(
        self, outbox: Outbox, campaigns: Sequence[Scope], newest_minute: int
    ) -> None:
        """Tell the shard of the channels which campaigns spent most above their usual, if any did."""
        self._take_candidates(campaigns)
        if not self._candidates:
            return
        candidates, self._candidates = dict.fromkeys(self._candidates), []
        told = tuple(self._detector.campaigns_told(candidates, self._ticked_minute))
        if not told:
            return
        item = CampaignsTold(self._shard, told)
        if self._shard == OVERALL_SHARD:
            self.campaigns_told(item)
        else:
            self._sender.send(outbox, {OVERALL_SHARD: [item]}, Progress((), newest_minute, None))

    def _all_told(self) -> list[CampaignTold]:
        return [each for told in self._told.values() for each in told.campaigns]

    # ------------------------------------------------------------------------- one scope

    def _evaluate(self, scope: Scope, waited_minutes: int, outbox: Outbox) -> None:
        standings = self._standings.get(scope, {})
        for finding in self._detector.evaluate(scope, self._ticked_minute, standings):
            self._step(finding, waited_minutes, outbox)
        for rule, standing in list(standings.items()):
            # One that has resolved is shown for a while yet.
            is_over = not standing.is_firing and standing.resolved_ms
            if not (is_over or self._is_watched(rule, scope)):
                now_ms = self._clock.now_ms()
                after, alert = gone(standing, rule, scope, self._ticked_minute, now_ms)
                self._take(rule, scope, after, alert, outbox)

    def _step(self, finding: Finding, waited_minutes: int, outbox: Outbox) -> None:
        rule, scope = finding.rule.name, finding.scope
        before = self._standings.get(scope, {}).get(rule, QUIET)
        after, alert = step(before, finding, self._clock.now_ms(), waited_minutes)
        if after is not before or alert is not None:
            self._take(rule, scope, after, alert, outbox)

    def _take(
        self, rule: str, scope: Scope, standing: Standing, alert: Alert | None, outbox: Outbox
    ) -> None:
        value = self._value(scope, rule) if alert is None else self._tell(alert, outbox)
        self._set(scope, rule, standing, value)

    def _is_watched(self, rule: str, scope: Scope) -> bool:
        known = self._rules.get(rule)
        return known is not None and known.concerns(scope)

    # ------------------------------------------------------------------------- telling

    def _tell(self, alert: Alert, outbox: Outbox) -> bytes:
        """Write a record and what follows from it, and return its value."""
        finding, scope = alert.finding, alert.finding.scope
        explanation = self._detector.explain(finding, self._all_told() if _is_wide(scope) else ())
        told = alert_value(alert, explanation, self._zone, self._currency)
        written = alert_record(told)
        outbox.put(self._topic, self._shard, *written)
        if told.state != UPDATED:
            self._tally.alerted(told.rule, told.state)
            self._news.told.append(told)
        self._show(scope, told.rule, written.value)
        if self._has_webhook:
            self._note(Notice(self._shard, told.id, written.value, written.key.decode()))
        return written.value

    def _show(self, scope: Scope, rule: str, value: bytes | None) -> None:
        self._news.views.append(AlertView(self._shard, self.version, rule, scope, value))

    def _note(self, notice: Notice) -> None:
        """Keep what a webhook is to be told until it was."""
        self._notices[notice.id] = notice
        self._news.notices.append(notice)
        self._rows.put(_notice_key(notice.id), _encode((notice.key, notice.body)))
        if len(self._notices) > MOST_NOTICES:
            oldest = next(iter(self._notices))
            log.warning(
                "notice dropped shard=%d id=%s waiting=%d", self._shard, oldest, MOST_NOTICES
            )
            self._news.dropped.append(self._drop_notice(oldest))

    def _drop_notice(self, notice_id: str) -> Notice:
        self._rows.delete(_notice_key(notice_id))
        return self._notices.pop(notice_id)

    # ------------------------------------------------------------------------- rows

    def _value(self, scope: Scope, rule: str) -> bytes | None:
        return self._values.get((scope, rule))

    def _set(self, scope: Scope, rule: str, standing: Standing, value: bytes | None) -> None:
        """Remember and write where a rule and scope stand, unless it is quiet as ever."""
        if standing == QUIET:
            self._forget(scope, rule)
            return
        self._standings.setdefault(scope, {})[rule] = standing
        self._values[scope, rule] = value
        self._rows.put(_row_key(scope, rule), _encode((standing, value)))

    def _forget(self, scope: Scope, rule: str) -> None:
        standings = self._standings.get(scope, {})
        if standings.pop(rule, None) is None:
            return
        if not standings:
            del self._standings[scope]
        if self._values.pop((scope, rule)) is not None:
            self._show(scope, rule, None)
        self._rows.delete(_row_key(scope, rule))

    def _age(self, now_ms: int) -> None:
        """Show resolved alerts no more after a day, and forget them when they may fire again."""
        for scope, rule in list(self._resolved_by(now_ms - LATELY_MS)):
            standing = self._standings[scope][rule]
            known = self._rules.get(rule)
            cooldown_minutes = 0 if known is None else known.cooldown_minutes
            is_quiet = not standing.streak or not self._is_watched(rule, scope)
            if is_quiet and is_past(standing, cooldown_minutes, now_ms):
                self._forget(scope, rule)
            elif self._value(scope, rule) is not None:
                self._show(scope, rule, None)
                self._set(scope, rule, standing, None)

    def _resolved_by(self, at_ms: int) -> Iterator[tuple[Scope, str]]:
        for scope, standings in self._standings.items():
            for rule, standing in standings.items():
                if not standing.is_firing and 0 < standing.resolved_ms <= at_ms:
                    yield scope, rule


def log_told(told: Iterable[AlertValue]) -> None:
    """Say which alerts fired and resolved."""
    for alert in told:
        log.info(
            "alert %s rule=%s channel=%s campaign=%s window=%s since=%s id=%s",
            alert.state,
            alert.rule,
            alert.scope.channel or "_all",
            alert.scope.campaign_id or "_all",
            alert.window.kind,
            alert.since,
            alert.id,
        )


def _is_wide(scope: Scope) -> bool:
    """Tell whether a scope is the whole or a channel."""
    return scope.campaign_id is None


def _row_key(scope: Scope, rule: str) -> bytes:
    return _encode((ALERT_ROW, rule, *scope))


def _notice_key(notice_id: str) -> bytes:
    return _encode((NOTICE_ROW, notice_id))
