"""Every setting: its name, what it may be, its default; read from leadpulse.toml and the environment."""

import difflib
import re
import ssl
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from zoneinfo import ZoneInfo

from kpis.alert_rules import CLICK_TO_LEAD, DEFAULT_RULES, Rule, RuleError, rules_of
from kpis.calendar import HOUR_MINUTES, MINUTE_MS
from kpis.fields import CHANNELS, PERSONAL, Rules
from kpis.retention import Retention as RetentionRule
from streams import setting_values
from streams.problems import Problem
from streams.setting_values import Reader, choice, key, names, pairs, secret, text, truth, whole

FILE = Path("leadpulse.toml")
PREFIX = "LEADPULSE_"
NAMES_FILE = "LEADPULSE_CONFIG"
SHORT = {
    "LEADPULSE_KAFKA": "LEADPULSE_KAFKA_SERVERS",
    "LEADPULSE_REDIS": "LEADPULSE_REDIS_URL",
}
METRICS_ADDRESS = "LEADPULSE_METRICS"
UTC = ZoneInfo("UTC")
STAGE = "[a-z0-9_]{1,32}"
CHANNEL = "[a-z0-9_-]{1,64}"

SECRET_CHARACTERS = 24
"""How long a webhook's secret has to be at least."""

_DAY_MINUTES = 24 * HOUR_MINUTES
_DAY_MS = _DAY_MINUTES * MINUTE_MS


class SettingsError(Problem):
    """A setting is not what it may be; a secret's value is not in it."""


@dataclass(frozen=True, slots=True)
class General:
    """Keys at the top of the file, before any section."""

    app_id: str = key("leadpulse", text("[A-Za-z0-9._-]{1,100}", "letters, digits, . _ -"))
    currency: str = key("EUR", setting_values.currency())
    time_zone: ZoneInfo = key(UTC, setting_values.zone())  # noqa: RUF009 - makes a field


@dataclass(frozen=True, slots=True)
class Kafka:
    """How the brokers are reached. `embedded`: librdkafka's mock broker, without admin requests."""

    servers: str = key("localhost:9092", setting_values.servers())
    security_protocol: str = key(
        "PLAINTEXT", choice("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL", upper=True)
    )
    sasl_mechanism: str = key("", choice("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", upper=True))
    sasl_username: str = key("", text(".*", "text"))
    sasl_password: str = key("", secret("text"))
    ssl_cafile: str = key("", text(".*", "the name of a file"))
    ssl_certfile: str = key("", text(".*", "the name of a file"))
    ssl_keyfile: str = key("", text(".*", "the name of a file"))
    check_crcs: bool = key(default=True, reader=truth())
    embedded: bool = key(default=False, reader=truth())
    start: str = key("beginning", choice("beginning", "end"))

    def client_options(self) -> dict[str, Any]:
        """Return what every aiokafka client (producer, consumer, admin) is given."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.servers,
            "security_protocol": self.security_protocol,
        }
        if "SSL" in self.security_protocol.split("_"):
            options["ssl_context"] = self._ssl_context()
        if self.security_protocol.startswith("SASL_"):
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password
        return options

    def consumer_options(self) -> dict[str, Any]:
        """Return `client_options` and what only consumers take."""
        # The mock broker's control batches have a wrong checksum.
        return {**self.client_options(), "check_crcs": self.check_crcs and not self.embedded}

    def _ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ssl_cafile or None)
        if self.ssl_certfile:
            # A key with a passphrase would ask for it on the terminal.
            keyfile = self.ssl_keyfile or None
            context.load_cert_chain(self.ssl_certfile, keyfile, password=lambda: "")
        return context


@dataclass(frozen=True, slots=True)
class Redis:
    """Where the live values go; `url` is empty to switch it off."""

    url: str = key("redis://localhost:6379/0", setting_values.redis_url())

    @property
    def is_on(self) -> bool:
        """Whether there is a Redis."""
        return bool(self.url)

    @property
    def shown_url(self) -> str:
        """The URL without user and password."""
        return setting_values.without_password(self.url)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where Prometheus reads and the page is; port 0 takes a free one.

    `hosts`: the names by which the page may be asked, beside local ones; empty: any.
    """

    host: str = key("127.0.0.1", text(r"[A-Za-z0-9.:_-]{1,253}", "a host name or address"))
    port: int = key(9464, whole(0, 65535))
    hosts: tuple[str, ...] = key((), names(r"[a-z0-9.-]{1,253}", "distinct names in lower case"))


@dataclass(frozen=True, slots=True)
class TopicNames:
    """How topics are named, and what `leadpulse topics --create` gives them."""

    prefix: str = key("leadgen.", text("[A-Za-z0-9._-]{0,100}", "letters, digits, . _ -"))
    partitions: int = key(4, whole(1, 10_000))
    replication: int = key(1, whole(1, 100))


@dataclass(frozen=True, slots=True)
class Funnel:
    """The ordered stages. Source: contract, sections 1 and 3."""

    stages: tuple[str, ...] = key(
        ("visitor", "lead", "mql", "sql", "customer"),
        names(STAGE, "distinct stages of a-z, 0-9, _ with lead before customer"),
    )
    aliases: Mapping[str, str] = key({}, pairs("a table of other names and their stages"))
    skipped: str = key("imply", choice("imply", "strict"))


@dataclass(frozen=True, slots=True)
class Channels:
    """Which channels there are, and which cost money."""

    allow_unknown: bool = key(default=True, reader=truth())
    cost_expected: Mapping[str, bool] = field(default_factory=dict)

    def expects_cost(self, channel: str) -> bool:
        """Return whether an unknown cost of `channel` is an error and not zero.

        Source: contract, section 5; true for names that end in `_ads` unless set.
        """
        return self.cost_expected.get(channel, channel.endswith("_ads"))


@dataclass(frozen=True, slots=True)
class Retention:
    """How long each grain is kept, back from the newest event time. Source: contract, section 1."""

    # Rolling windows begin in the bucket before the one they reach back to: an hour ago, 7 and 28
    # days ago. Months are sums of days and final two days after their end, and the leads of a
    # horizon are told apart by their days. Alerts compare `last_24h`, which begins with an hour, with
    # the same hours four weeks before.
    minute_hours: int = key(3, whole(2, 240, "hours"))
    hour_days: int = key(36, whole(30, 400, "days"))
    day_days: int = key(400, whole(35, 36_600, "days"))


@dataclass(frozen=True, slots=True)
class Cohort:
    """How long after its creation a lead's first sale counts in `conversion_within`."""

    horizon_days: int = key(30, whole(1, 400, "days"))


@dataclass(frozen=True, slots=True)
class Limits:
    """How many campaign scopes are kept, shared evenly by the shards."""

    scopes: int = key(200_000, whole(1, 100_000_000))


@dataclass(frozen=True, slots=True)
class Park:
    """How long an event waits for the `created` of its lead or sale."""

    days: int = key(7, whole(1, 400, "days"))


@dataclass(frozen=True, slots=True)
class Clicks:
    """How long the id of a click is remembered, and that of an impression if it is at all."""

    keep_days: int = key(7, whole(1, 400, "days"))


@dataclass(frozen=True, slots=True)
class Dedup:
    """Whether impressions with an id count once."""

    impressions: bool = key(default=False, reader=truth())


@dataclass(frozen=True, slots=True)
class Rejects:
    """Fields (whole names, lower case) that are cut out of what goes to the rejects topic."""

    personal: tuple[str, ...] = key(
        tuple(sorted(PERSONAL)), names(r"[^A-Z\s]+", "distinct names in lower case")
    )


@dataclass(frozen=True, slots=True)
class Prometheus:
    """How many campaigns are series of their own, by cost."""

    top_campaigns: int = key(50, whole(0, 10_000))


@dataclass(frozen=True, slots=True)
class Alerts:
    """Which rules watch, and who is told. A secret is required with a URL: see docs/alerts.md."""

    rules: str = key("", text(".*", "the name of a file"))
    webhook_url: str = key("", setting_values.web_url())
    webhook_secret: str = key(
        "", secret(f"text of at least {SECRET_CHARACTERS} characters", SECRET_CHARACTERS)
    )
    webhook_timeout_seconds: int = key(10, whole(1, 60, "seconds"))

    @property
    def has_webhook(self) -> bool:
        """Whether somebody is told."""
        return bool(self.webhook_url)

    @property
    def shown_webhook(self) -> str:
        """The URL without what may be a credential: user, password, path and query."""
        return setting_values.origin(self.webhook_url)


@dataclass(frozen=True, slots=True)
class Commit:
    """How often a shard commits, and how long it may stretch that in a backlog."""

    interval_ms: int = key(100, whole(10, 60_000, "milliseconds"))
    publish_ms: int = key(250, whole(10, 60_000, "milliseconds"))
    backlog_ms: int = key(2_000, whole(10, 60_000, "milliseconds"))


@dataclass(frozen=True, slots=True)
class Session:
    """When the consumer group declares a worker dead."""

    timeout_seconds: int = key(10, whole(1, 1_800, "seconds"))
    heartbeat_seconds: int = key(2, whole(1, 600, "seconds"))
    rebalance_seconds: int = key(15, whole(1, 1_800, "seconds"))


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one deployment, checked."""

    general: General = field(default_factory=General)
    kafka: Kafka = field(default_factory=Kafka)
    redis: Redis = field(default_factory=Redis)
    metrics: Metrics = field(default_factory=Metrics)
    topics: TopicNames = field(default_factory=TopicNames)
    funnel: Funnel = field(default_factory=Funnel)
    channels: Channels = field(default_factory=Channels)
    retention: Retention = field(default_factory=Retention)
    cohort: Cohort = field(default_factory=Cohort)
    limits: Limits = field(default_factory=Limits)
    park: Park = field(default_factory=Park)
    clicks: Clicks = field(default_factory=Clicks)
    dedup: Dedup = field(default_factory=Dedup)
    rejects: Rejects = field(default_factory=Rejects)
    prometheus: Prometheus = field(default_factory=Prometheus)
    alerts: Alerts = field(default_factory=Alerts)
    commit: Commit = field(default_factory=Commit)
    session: Session = field(default_factory=Session)

    @property
    def app_id(self) -> str:
        """The name of the consumer group, of its own topics and its transactions."""
        return self.general.app_id

    @property
    def currency(self) -> str:
        """The reporting currency."""
        return self.general.currency

    @property
    def time_zone(self) -> ZoneInfo:
        """The reporting time zone."""
        return self.general.time_zone

    @property
    def park_ms(self) -> int:
        """How long an event waits for the `created` of its lead or sale."""
        return self.park.days * _DAY_MS

    @property
    def keep_ms(self) -> int:
        """How long the id of a click or impression is remembered."""
        return self.clicks.keep_days * _DAY_MS

    @property
    def horizon_ms(self) -> int:
        """How long after its creation a lead's first sale counts in `conversion_within`."""
        return self.cohort.horizon_days * _DAY_MS

    def retention_rule(self) -> RetentionRule:
        """Return how long each grain is kept, as what counts knows it."""
        keep = self.retention
        return RetentionRule(
            keep.minute_hours * HOUR_MINUTES,
            keep.hour_days * _DAY_MINUTES,
            keep.day_days * _DAY_MINUTES,
        )

    def alert_rules(self) -> tuple[Rule, ...]:
        """Return the rules of alerts, read from their file if one is named; also those switched off.

        Raises:
            SettingsError: if the file cannot be read, or a rule in it is not what it may be.
        """
        if not self.alerts.rules:
            return DEFAULT_RULES
        try:
            found = rules_of(_table_of(Path(self.alerts.rules), "alerts.rules"), self.alerts.rules)
        except RuleError as error:
            where, _, rest = str(error).partition(": expected ")
            expected, _, got = rest.partition(", got ")
            raise SettingsError(where, expected, got) from None
        for rule in found:
            _check_rule(rule, self.alerts.rules, self.funnel.stages)
        return found

    def rules(self) -> Rules:
        """Return what decides whether an event is accepted, and as what."""
        return Rules(
            currency=self.currency,
            time_zone=self.time_zone,
            funnel=self.funnel.stages,
            stage_aliases=self.funnel.aliases,
            allow_unknown_channels=self.channels.allow_unknown,
            personal=frozenset(self.rejects.personal),
            # A channel that the settings name is known.
            channels=CHANNELS | self.channels.cost_expected.keys(),
            dedup_impressions=self.dedup.impressions,
        )


class Given(NamedTuple):
    """A value that somebody set, and where: a variable or a file."""

    value: object
    where: str
    is_text: bool


Keys = dict[tuple[str, str], Given]
GENERAL = "general"
SECTIONS: Mapping[str, type] = {part.name: part.default_factory for part in fields(Settings)}  # type: ignore[misc] # each has one, and it is a class


def load(environ: Mapping[str, str], path: Path | None = None) -> Settings:
    """Return the settings from `path` (else LEADPULSE_CONFIG, else ./leadpulse.toml) and `environ`.

    Raises:
        SettingsError: at the first key that is unknown or is not what it may be.
    """
    given = {**_from_file(environ, path), **_from_environment(environ)}
    sections = {name: _section(name, given) for name in SECTIONS}
    settings = Settings(**sections)
    for name, expected, got in _contradictions(settings):
        section, _, of_section = name.partition(".")
        found = given.get((section, of_section))
        raise SettingsError(_where(name, found), expected, got)
    # Read for their errors: they are told before anything starts.
    settings.alert_rules()
    return settings


def _from_file(environ: Mapping[str, str], path: Path | None) -> Keys:
    named = path or (Path(environ[NAMES_FILE]) if environ.get(NAMES_FILE) else None)
    file = named or FILE
    if named is None and not file.exists():
        return {}
    table = _table_of(file, NAMES_FILE if path is None and named else "")
    return dict(_of_table(table, str(file)))


def _table_of(file: Path, named_by: str) -> dict[str, Any]:
    """Return what is in a TOML file; `named_by` says who named it, if anybody did."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        got = error.strerror or type(error).__name__
        where = f"{file} ({named_by})" if named_by else str(file)
        raise SettingsError(where, "a file to read", got) from error
    except UnicodeDecodeError as error:
        raise SettingsError(str(file), "UTF-8 text", f"byte {error.start} that is none") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(str(file), "TOML", str(error)) from error


def _check_rule(rule: Rule, file: str, stages: tuple[str, ...]) -> None:
    """Refuse what a rule names that there cannot be: it would watch in vain."""
    for channel in rule.channels:
        if not re.fullmatch(CHANNEL, channel):
            where, expected = f"{file}: {rule.name}.channels", "channels of a-z, 0-9, _, -"
            raise SettingsError(where, expected, f"{channel!r:.80}")
    for kpi in rule.kpis:
        fact, dot, stage = kpi.partition(".")
        if dot and stage not in stages:
            where = f"{file}: {rule.name}.kpis"
            expected = f"{fact} of a stage of the funnel ({', '.join(stages)})"
            raise SettingsError(where, expected, f"{kpi!r:.80}", _nearest(stage, stages))
    # Source: contract, section 5, stage_conversion: neighbours from `lead` on.
    steps = pairwise(stages[stages.index("lead") :])
    known = (CLICK_TO_LEAD, *(f"{earlier}.{later}" for earlier, later in steps))
    if rule.step not in known:
        where, expected = f"{file}: {rule.name}.step", f"one of {', '.join(known)}"
        raise SettingsError(where, expected, f"{rule.step!r:.80}", _nearest(rule.step, known))


def _of_table(table: dict[str, Any], file: str) -> Iterator[tuple[tuple[str, str], Given]]:
    for name, value in table.items():
        if not isinstance(value, dict):
            yield _known(GENERAL, name, file), Given(value, file, is_text=False)
            continue
        if name not in SECTIONS or name == GENERAL:
            _refuse_unknown("section", f"[{name}]", [f"[{known}]" for known in SECTIONS], file)
        for of_section, inner in value.items():
            found = Given(inner, file, is_text=False)
            if name == "channels" and isinstance(inner, dict):
                yield from _of_channel(of_section, inner, file)
            else:
                yield _known(name, of_section, file), found


def _of_channel(
    channel: str, table: dict[str, Any], file: str
) -> Iterator[tuple[tuple[str, str], Given]]:
    for name, value in table.items():
        if name != "cost_expected":
            known = [f"channels.{channel}.cost_expected"]
            _refuse_unknown("key", f"channels.{channel}.{name}", known, file)
        yield ("channels", f"{channel}.{name}"), Given(value, file, is_text=False)


# A pod finds these for a Service that is named leadpulse.
# Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_KUBERNETES = re.compile(
    rf"{PREFIX}(PORT(_\d+_\w+)?|SERVICE_HOST|SERVICE_PORT(_\w+)?)", re.ASCII
)


def _from_environment(environ: Mapping[str, str]) -> Keys:
    variables = _variables()
    given: Keys = {}
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        if _OF_KUBERNETES.fullmatch(variable):
            continue
        found = Given(environ[variable], variable, is_text=True)
        channel = re.fullmatch(f"{PREFIX}CHANNELS_(.+)_COST_EXPECTED", variable)
        if channel:
            _set_once(given, ("channels", f"{channel[1].lower()}.cost_expected"), found)
        elif variable == METRICS_ADDRESS:
            _set_metrics(given, found)
        elif SHORT.get(variable, variable) in variables:
            _set_once(given, variables[SHORT.get(variable, variable)], found)
        elif variable != NAMES_FILE:
            known = [*variables, *SHORT, METRICS_ADDRESS, NAMES_FILE]
            _refuse_unknown("variable", variable, known, "environment")
    return given


def _set_metrics(given: Keys, found: Given) -> None:
    try:
        host, port = setting_values.host_and_port(str(found.value))
    except ValueError as error:
        got = f"{found.value!r:.40}"
        raise SettingsError(_where("metrics", found), "host:port", got) from error
    _set_once(given, ("metrics", "host"), Given(host, found.where, is_text=True))
    _set_once(given, ("metrics", "port"), Given(str(port), found.where, is_text=True))


def _set_once(given: Keys, name: tuple[str, str], found: Given) -> None:
    if name in given:
        both = f"both {given[name].where} and {found.where}"
        raise SettingsError(".".join(name), "one variable", both)
    given[name] = found


def _variables() -> dict[str, tuple[str, str]]:
    """Return the variable of every key, except those of single channels."""
    variables = {}
    for section, name in _all_keys():
        parts = (name,) if section == GENERAL else (section, name)
        variables[PREFIX + "_".join(parts).upper()] = (section, name)
    return variables


def _all_keys() -> list[tuple[str, str]]:
    return [(section, one.name) for section in SECTIONS for one in _keys_of(section)]


def _keys_of(section: str) -> list[Field[Any]]:
    return [one for one in fields(SECTIONS[section]) if "reader" in one.metadata]


def _known(section: str, name: str, file: str) -> tuple[str, str]:
    if (section, name) not in _all_keys():
        known = [_name(*each) for each in _all_keys()]
        _refuse_unknown("key", _name(section, name), known, file)
    return section, name


def _refuse_unknown(kind: str, name: str, known: list[str], where: str) -> NoReturn:
    raise SettingsError(
        where, f"a {kind} that LeadPulse knows", f"{name:.80}", _nearest(name, known)
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {found[0]}?" if found else ""


def _section(section: str, given: Keys) -> Any:
    values = {
        one.name: _value(_name(section, one.name), given[section, one.name], one.metadata["reader"])
        for one in _keys_of(section)
        if (section, one.name) in given
    }
    if section == "channels":
        values["cost_expected"] = _costs_expected(given)
    return SECTIONS[section](**values)


def _costs_expected(given: Keys) -> dict[str, bool]:
    expected = {}
    for (section, name), found in given.items():
        channel, dot, _ = name.rpartition(".")
        if section != "channels" or not dot:
            continue
        if not re.fullmatch(CHANNEL, channel):
            raise SettingsError(_where("channels", found), "a channel of a-z, 0-9, _, -", channel)
        expected[channel] = _value(f"channels.{name}", found, truth())
    return expected


def _value(name: str, found: Given, reader: Reader) -> Any:
    value = found.value
    try:
        return reader.read(reader.from_text(str(value)) if found.is_text else value)
    except ValueError:
        got = setting_values.shown(value, reader)
        # Not `from error`: the text of a cause may repeat a secret.
        raise SettingsError(_where(name, found), reader.expected, got) from None


def _where(name: str, found: Given | None) -> str:
    return f"{name} ({found.where})" if found else name


def _name(section: str, name: str) -> str:
    return name if section == GENERAL else f"{section}.{name}"


def _contradictions(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Yield key, what was expected and what came, where keys do not go together."""
    yield from _funnel_contradictions(settings.funnel)
    yield from _kafka_contradictions(settings.kafka)
    if settings.alerts.webhook_url and not settings.alerts.webhook_secret:
        yield "alerts.webhook_secret", "a secret, since alerts.webhook_url is set", "none"
    retention, session = settings.retention, settings.session
    if retention.minute_hours > 24 * retention.hour_days:
        yield "retention.hour_days", "at least retention.minute_hours", f"{retention.hour_days}"
    if settings.cohort.horizon_days >= retention.day_days:
        expected = "more than cohort.horizon_days"
        yield "retention.day_days", expected, f"{retention.day_days}"
    if retention.hour_days > retention.day_days:
        yield "retention.day_days", "at least retention.hour_days", f"{retention.day_days}"
    if session.heartbeat_seconds * 2 > session.timeout_seconds:
        expected = "at most half of session.timeout_seconds"
        yield "session.heartbeat_seconds", expected, f"{session.heartbeat_seconds}"
    if settings.commit.backlog_ms < settings.commit.interval_ms:
        expected = "at least commit.interval_ms"
        yield "commit.backlog_ms", expected, f"{settings.commit.backlog_ms}"


def _funnel_contradictions(funnel: Funnel) -> Iterator[tuple[str, str, str]]:
    stages = funnel.stages
    has_both = "lead" in stages and "customer" in stages
    if not has_both or stages.index("lead") > stages.index("customer"):
        yield "funnel.stages", "lead, and customer after it", ", ".join(stages) or "nothing"
    for alias, stage in funnel.aliases.items():
        if stage not in stages:
            yield "funnel.aliases", f"stages of the funnel ({', '.join(stages)})", f"{stage!r:.40}"
        if alias in stages:
            yield "funnel.aliases", "names that are no stages", f"{alias!r:.40}"


def _kafka_contradictions(kafka: Kafka) -> Iterator[tuple[str, str, str]]:
    protocol = kafka.security_protocol
    for name in ("sasl_mechanism", "sasl_username", "sasl_password"):
        if protocol.startswith("SASL_") and not getattr(kafka, name):
            yield f"kafka.{name}", f"a value, since kafka.security_protocol is {protocol}", "none"
        if not protocol.startswith("SASL_") and getattr(kafka, name):
            yield "kafka.security_protocol", f"SASL_…, since kafka.{name} is set", protocol
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        file = getattr(kafka, name)
        if file and not protocol.endswith("SSL"):
            yield "kafka.security_protocol", f"SSL or SASL_SSL, since kafka.{name} is set", protocol
        if file and not Path(file).is_file():
            yield f"kafka.{name}", "a file to read", f"{file!r:.80}"
    if kafka.ssl_keyfile and not kafka.ssl_certfile:
        yield "kafka.ssl_certfile", "a file, since kafka.ssl_keyfile is set", "none"
    try:
        kafka.client_options()
    except OSError as error:
        got = getattr(error, "reason", None) or error.strerror or type(error).__name__
        expected = "certificates in PEM and a key without passphrase"
        yield "kafka.ssl_cafile, ssl_certfile, ssl_keyfile", expected, f"{got}"
