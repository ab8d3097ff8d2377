"""The fields of one record, read by name and checked; the first fault refuses the record.

Source: contract, sections 2 and 8.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from functools import cached_property
from typing import Final, NoReturn
from zoneinfo import ZoneInfo

from kpis import instants, money
from kpis.catalog import Catalog
from kpis.events import OTHER_CHANNEL, UNATTRIBUTED
from kpis.instants import InstantError
from kpis.json_text import Integer, Number
from kpis.money import AmountError, RateError

CHANNELS: Final = frozenset(
    (
        "google_ads",
        "linkedin_ads",
        "meta_ads",
        "microsoft_ads",
        "seo",
        "email",
        "referral",
        "direct",
        "event",
        "partner",
        "organic_social",
    )
)
"""The default table of channels."""

PERSONAL: Final = frozenset(
    (
        *("email", "e-mail", "e_mail", "mail", "email_address"),
        *("phone", "phone_number", "telephone", "mobile", "mobile_number"),
        *("name", "full_name", "first_name", "last_name", "given_name", "family_name", "surname"),
        *("ip", "ip_address", "client_ip", "address", "street", "postal_address"),
        *("birth_date", "date_of_birth"),
    )
)
"""The default names of personal fields, in lower case."""

LONGEST_ID: Final = 256
LONGEST_EVENT_ID: Final = 128
LARGEST_COUNT: Final = 10**12

_RESERVED: Final = frozenset(("_all", "__other__"))
_CHANNEL: Final = re.compile("[a-z0-9_-]{1,64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LONGEST_SHOWN: Final = 40
_ABSENT: Final = object()


@dataclass(frozen=True)
class Rules:
    """What a deployment's settings say about its input.

    `time_zone` is the reporting zone, `max_bytes` the largest record; `stage_aliases` maps other
    names to stages of the funnel; `personal` are names of fields, in lower case, whose values are
    never shown. Where `dedup_impressions`, an impression with an `impression_id` counts once.
    """

    currency: str = "EUR"
    time_zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    funnel: tuple[str, ...] = ("visitor", "lead", "mql", "sql", "customer")
    stage_aliases: Mapping[str, str] = field(default_factory=dict)
    allow_unknown_channels: bool = True
    max_bytes: int = 262_144
    personal: frozenset[str] = PERSONAL
    channels: frozenset[str] = CHANNELS
    dedup_impressions: bool = False

    @cached_property
    def target_kpis(self) -> Mapping[str, str]:
        """The facts and KPIs that a target may be about, by full name, each with its unit."""
        return Catalog(self.funnel).target_units

    @cached_property
    def stages(self) -> Mapping[str, str]:
        """Every accepted name of a stage, with the stage it means."""
        return {**self.stage_aliases, **{stage: stage for stage in self.funnel}}

    @cached_property
    def known_channels(self) -> frozenset[str]:
        """The channels that are kept even where unknown ones are not allowed."""
        return self.channels | {UNATTRIBUTED, OTHER_CHANNEL}


class Refused(Exception):  # noqa: N818 - a refused record is an outcome of reading, not an error
    """A record that can never be counted, with the reason (contract, section 8) and the place.

    `field` is None where the record as a whole is at fault; `event_id` and `occurred_at` are what
    the record says, if that much could be read.
    """

    def __init__(
        self,
        reason: str,
        field: str | None,
        message: str,
        event_id: str | None = None,
        occurred_at: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field
        self.message = message
        self.event_id = event_id
        self.occurred_at = occurred_at


def shown(value: object) -> str:
    """Return a parsed value as it may appear in a message: one line of about 40 characters."""
    if value is _ABSENT:
        return "nothing"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if not isinstance(value, str):
        return json.dumps(value)
    cut = value if len(value) <= _LONGEST_SHOWN else value[: _LONGEST_SHOWN - 1] + "…"
    return cut if isinstance(value, Number) else json.dumps(cut, ensure_ascii=False)


def refuse(reason: str, name: str, expected: str, got: object, rules: Rules) -> NoReturn:
    """Raise the `Refused` that says which field is at fault; personal values are not quoted."""
    quoted = "a value that is not shown" if name.lower() in rules.personal else shown(got)
    raise Refused(reason, name, f"{name}: expected {expected}, got {quoted}")


def refuse_field(fields: "Fields", reason: str, name: str, expected: str) -> NoReturn:
    """Raise the `Refused` over a field as it stands in the record."""
    refuse(reason, name, expected, fields.members.get(name, _ABSENT), fields.rules)


def normal_channel(text: str, rules: Rules) -> str:
    """Return a declared channel trimmed, in lower case, and known if it has to be.

    Raises:
        Refused: `bad_id` for reserved names, `bad_value` for what is no channel's name.
    """
    channel = text.strip().lower()
    if channel in rules.known_channels:
        return channel
    if channel in _RESERVED:
        refuse("bad_id", "channel", "a name that is not reserved", text, rules)
    if _CHANNEL.fullmatch(channel) is None:
        refuse("bad_value", "channel", "1 to 64 of a-z, 0-9, _ and -", text, rules)
    return channel if rules.allow_unknown_channels else OTHER_CHANNEL


def normal_campaign(text: str, rules: Rules) -> str:
    """Return a declared campaign trimmed and in Unicode's composed form (NFC), its case kept.

    Raises:
        Refused: `bad_id` for reserved names and for what is no id.
    """
    campaign = text if text.isascii() else unicodedata.normalize("NFC", text)
    campaign = normal_id("campaign_id", campaign, LONGEST_ID, rules)
    if campaign in _RESERVED:
        refuse("bad_id", "campaign_id", "a name that is not reserved", text, rules)
    return campaign


def normal_id(name: str, text: str, longest: int, rules: Rules) -> str:
    """Return an id trimmed.

    Raises:
        Refused: `bad_id` if nothing or more than `longest` characters are left, or control
            characters are among them.
    """
    trimmed = text.strip()
    # Printable text has no control characters; what else is unprintable is allowed.
    if 0 < len(trimmed) <= longest and (trimmed.isprintable() or not _CONTROL.search(trimmed)):
        return trimmed
    expected = f"1 to {longest} characters without control characters"
    refuse("bad_id", name, expected, text, rules)


class Fields:
    """The members of a record's JSON object.

    A method without `required` returns None where the field is missing, null or empty; then the
    `required_` one refuses with `missing_field`. All refuse a wrong type with `wrong_type`.
    """

    __slots__ = ("members", "rules")

    def __init__(self, members: dict[str, object], rules: Rules) -> None:
        self.members = members
        self.rules = rules

    def text(self, name: str, expected: str = "text") -> str | None:
        """Return a text as it is."""
        value = self.members.get(name)
        if type(value) is str:
            return value or None
        if value is None:
            return None
        refuse_field(self, "wrong_type", name, expected)

    def required_text(self, name: str, expected: str = "text") -> str:
        """Return a text that must be there."""
        value = self.members.get(name)
        if type(value) is str and value:
            return value
        if value is None or value == "":
            refuse_field(self, "missing_field", name, expected)
        refuse_field(self, "wrong_type", name, expected)

    def identifier(self, name: str) -> str | None:
        """Return an id, trimmed."""
        text = self.text(name)
        return None if text is None else normal_id(name, text, LONGEST_ID, self.rules)

    def required_identifier(self, name: str, longest: int = LONGEST_ID) -> str:
        """Return an id that must be there, trimmed."""
        return normal_id(name, self.required_text(name), longest, self.rules)

    def channel(self) -> str | None:
        """Return the declared channel, normalised."""
        text = self.text("channel")
        return None if text is None else normal_channel(text, self.rules)

    def required_channel(self) -> str:
        """Return the channel that must be declared, normalised."""
        return normal_channel(self.required_text("channel"), self.rules)

    def other_channel(self, channel: str) -> str:
        """Return the name under which a channel was declared that counts as `other`, else nothing."""
        return self.required_text("channel").strip().lower() if channel == OTHER_CHANNEL else ""

    def campaign(self) -> str | None:
        """Return the declared campaign, normalised."""
        text = self.text("campaign_id")
        return None if text is None else normal_campaign(text, self.rules)

    def flag(self, name: str) -> bool:
        """Return a truth; absent is false."""
        value = self.members.get(name)
        if value is None or value == "":
            return False
        if isinstance(value, bool):
            return value
        refuse_field(self, "wrong_type", name, "true or false")

    def required_count(self, name: str) -> int:
        """Return a whole number of 0 to 10^12 that must be there."""
        expected = "a whole number from 0 to 10^12"
        value = self.members.get(name)
        if type(value) is Integer:
            # Longer ones are out of range anyway, and slow to turn into numbers.
            if len(value) <= 14 and 0 <= int(value) <= LARGEST_COUNT:
                return int(value)
            refuse_field(self, "bad_count", name, expected)
        if value is None or value == "":
            refuse_field(self, "missing_field", name, expected)
        refuse_field(self, "wrong_type", name, expected)

    def instant(self, name: str) -> int | None:
        """Return an instant in ms since 1970."""
        value = self.members.get(name)
        return None if value is None or value == "" else self.required_instant(name)

    def required_instant(self, name: str) -> int:
        """Return an instant, in ms since 1970, that must be there."""
        text = self._time_text(name, instants.INSTANT)
        try:
            return instants.instant_ms(text)
        except InstantError:
            refuse_field(self, "bad_time", name, instants.INSTANT)

    def required_bound(self, name: str, zone: ZoneInfo) -> int:
        """Return a period's bound in ms: an instant, or the first one of a date in `zone`."""
        expected = f"{instants.INSTANT}, or a date"
        text = self._time_text(name, expected)
        try:
            if instants.is_date(text):
                return instants.date_ms(text, zone)
            return instants.instant_ms(text)
        except InstantError:
            refuse_field(self, "bad_time", name, expected)

    def _time_text(self, name: str, expected: str) -> str:
        # A number is the wrong way to write a time, which is more particular than a wrong type.
        if isinstance(self.members.get(name), Number):
            refuse_field(self, "bad_time", name, expected)
        return self.required_text(name, expected)

    def zone(self, name: str) -> ZoneInfo:
        """Return a time zone; absent is the reporting zone."""
        text = self.text(name, instants.TIME_ZONE)
        if text is None:
            return self.rules.time_zone
        try:
            return instants.time_zone(text)
        except InstantError:
            refuse_field(self, "unknown_time_zone", name, instants.TIME_ZONE)

    def required_date(self, name: str) -> date:
        """Return a calendar date that must be there."""
        text = self._time_text(name, instants.DATE)
        try:
            return instants.calendar_date(text)
        except InstantError:
            refuse_field(self, "bad_time", name, instants.DATE)

    def amount(self, name: str, *, signed: bool = False) -> int | None:
        """Return an amount of money in micros; one below 0 only if it may be `signed`."""
        text = self._decimal_text(name, money.AMOUNT)
        if text is None:
            return None
        try:
            micros = money.amount_micros(text)
        except AmountError:
            refuse_field(self, "bad_amount", name, money.AMOUNT)
        if micros < 0 and not signed:
            refuse_field(self, "negative_amount", name, "an amount of at least 0")
        return micros

    def required_amount(self, name: str, *, signed: bool = False) -> int:
        """Return an amount, in micros, that must be there."""
        micros = self.amount(name, signed=signed)
        if micros is None:
            refuse_field(self, "missing_field", name, money.AMOUNT)
        return micros

    def required_target(self, name: str) -> int:
        """Return what a target comes to, in millionths, above 0; it must be there."""
        expected = f"{money.AMOUNT}, above 0"
        text = self._required_decimal_text(name, expected)
        try:
            micros = money.amount_micros(text)
        except AmountError:
            refuse_field(self, "bad_target", name, expected)
        if micros <= 0:
            refuse_field(self, "bad_target", name, expected)
        return micros

    def required_rate(self, name: str) -> Fraction:
        """Return a rate of exchange that must be there."""
        text = self._required_decimal_text(name, money.RATE)
        try:
            return money.exchange_rate(text)
        except RateError:
            refuse_field(self, "bad_rate", name, money.RATE)

    def _decimal_text(self, name: str, expected: str) -> str | None:
        """Return a number as it was written, as text or as JSON number."""
        value = self.members.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            refuse_field(self, "wrong_type", name, expected)
        return value

    def _required_decimal_text(self, name: str, expected: str) -> str:
        text = self._decimal_text(name, expected)
        if text is None:
            refuse_field(self, "missing_field", name, expected)
        return text

    def required_currency(self, name: str = "currency") -> str:
        """Return a currency that must be there."""
        code = self.text(name, money.CURRENCY)
        if code is None:
            # Only the field of that name has a reason of its own.
            reason = "missing_currency" if name == "currency" else "missing_field"
            refuse_field(self, reason, name, money.CURRENCY)
        if code not in money.CURRENCIES:
            refuse_field(self, "unknown_currency", name, money.CURRENCY)
        return code

    def check_reporting_currency(self) -> None:
        """Refuse a currency that is missing, unknown or not the reporting one."""
        if self.required_currency() != self.rules.currency:
            expected = f"the reporting currency {self.rules.currency}"
            refuse_field(self, "unsupported_currency", "currency", expected)

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        """Return one of the `choices`."""
        text = self.text(name)
        if text is None or text in choices:
            return text
        refuse_field(self, "bad_value", name, "one of " + ", ".join(choices))

    def required_choice(self, name: str, choices: Collection[str]) -> str:
        """Return one of the `choices`, which must be there."""
        choice = self.choice(name, choices)
        if choice is None:
            refuse_field(self, "missing_field", name, "one of " + ", ".join(choices))
        return choice

    def stage(self, name: str) -> str | None:
        """Return a stage of the funnel, also where the record uses an alias."""
        text = self.text(name)
        if text is None:
            return None
        stage = self.rules.stages.get(text)
        if stage is None:
            refuse_field(self, "unknown_stage", name, "one of " + ", ".join(self.rules.funnel))
        return stage

    def required_stage(self, name: str) -> str:
        """Return the stage of the funnel that must be there."""
        stage = self.stage(name)
        if stage is None:
            refuse_field(self, "missing_field", name, "one of " + ", ".join(self.rules.funnel))
        return stage
