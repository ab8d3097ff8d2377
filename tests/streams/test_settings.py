import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.alert_rules import DEFAULT_RULES, KINDS, WINDOWS, keys_of
from kpis.baselines import WEEKS, hours_of, same_hours
from kpis.calendar import Calendar
from kpis.fields import CHANNELS
from kpis.retention import Buckets, Grain
from streams.settings import Settings, SettingsError, load

SASL = {
    "LEADPULSE_KAFKA_SECURITY_PROTOCOL": "sasl_plaintext",
    "LEADPULSE_KAFKA_SASL_MECHANISM": "scram-sha-512",
    "LEADPULSE_KAFKA_SASL_USERNAME": "ada",
    "LEADPULSE_KAFKA_SASL_PASSWORD": "hunter2",
}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def error_of(environ: dict[str, str] | None = None, toml: str | None = None) -> str:
    if toml is not None:
        Path("leadpulse.toml").write_text(toml, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(environ or {})
    return str(caught.value)


def test_without_file_and_variables_everything_has_a_default() -> None:
    settings = load({})
    assert settings == Settings()
    assert settings.kafka.servers == "localhost:9092"
    assert settings.redis.url == "redis://localhost:6379/0"
    assert (settings.metrics.host, settings.metrics.port) == ("127.0.0.1", 9464)
    assert (settings.app_id, settings.currency, settings.time_zone.key) == (
        "leadpulse",
        "EUR",
        "UTC",
    )


def test_file_in_the_working_directory_is_read() -> None:
    Path("leadpulse.toml").write_text(
        """
        currency = "USD"
        time_zone = "Europe/Paris"
        [kafka]
        servers = "a:1, b:2"
        [funnel]
        stages = ["lead", "call", "customer"]
        aliases = { Anruf = "call" }
        [channels]
        allow_unknown = false
        [channels.seo]
        cost_expected = true
        [retention]
        minute_hours = 6
        """,
        encoding="utf-8",
    )
    settings = load({})
    assert settings.currency == "USD"
    assert settings.time_zone.key == "Europe/Paris"
    assert settings.kafka.servers == "a:1,b:2"
    assert settings.funnel.stages == ("lead", "call", "customer")
    assert settings.funnel.aliases == {"Anruf": "call"}
    assert settings.retention.minute_hours == 6
    assert not settings.channels.allow_unknown


def test_environment_wins_over_the_file() -> None:
    Path("leadpulse.toml").write_text(
        '[kafka]\nservers = "file:1"\nstart = "end"', encoding="utf-8"
    )
    settings = load({"LEADPULSE_KAFKA": "variable:2"})
    assert settings.kafka.servers == "variable:2"
    assert settings.kafka.start == "end"


def test_config_variable_names_another_file(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('app_id = "other"', encoding="utf-8")
    assert load({"LEADPULSE_CONFIG": str(tmp_path / "other.toml")}).app_id == "other"
    assert load({}, tmp_path / "other.toml").app_id == "other"


def test_every_key_has_its_variable() -> None:
    settings = load(
        {
            "LEADPULSE_APP_ID": "x",
            "LEADPULSE_FUNNEL_STAGES": "lead, call ,customer",
            "LEADPULSE_FUNNEL_ALIASES": "Anruf=call, sold=customer",
            "LEADPULSE_CHANNELS_SEO_COST_EXPECTED": "yes",
            "LEADPULSE_COMMIT_INTERVAL_MS": "50",
            "LEADPULSE_REJECTS_PERSONAL": "email,iban",
            "LEADPULSE_METRICS": "[::1]:0",
            "LEADPULSE_REDIS": "",
            "SOMETHING_ELSE": "ignored",
        }
    )
    assert settings.app_id == "x"
    assert settings.funnel.stages == ("lead", "call", "customer")
    assert settings.funnel.aliases == {"Anruf": "call", "sold": "customer"}
    assert settings.channels.expects_cost("seo")
    assert settings.commit.interval_ms == 50
    assert settings.rejects.personal == ("email", "iban")
    assert (settings.metrics.host, settings.metrics.port) == ("::1", 0)
    assert not settings.redis.is_on


def test_channels_of_ads_expect_cost_unless_told_otherwise() -> None:
    channels = load({"LEADPULSE_CHANNELS_META_ADS_COST_EXPECTED": "false"}).channels
    assert channels.expects_cost("google_ads")
    assert not channels.expects_cost("meta_ads")
    assert not channels.expects_cost("seo")


def test_rules_are_the_settings_that_reading_needs() -> None:
    rules = load(
        {
            "LEADPULSE_CURRENCY": "CHF",
            "LEADPULSE_FUNNEL_ALIASES": "MQL=mql",
            "LEADPULSE_CHANNELS_RADIO_COST_EXPECTED": "true",
            "LEADPULSE_CHANNELS_ALLOW_UNKNOWN": "false",
        }
    ).rules()
    assert rules.currency == "CHF"
    assert rules.stages["MQL"] == "mql"
    assert rules.channels == CHANNELS | {"radio"}
    assert not rules.allow_unknown_channels
    assert not rules.dedup_impressions


def test_impressions_are_deduplicated_only_if_asked_for() -> None:
    assert not load({}).rules().dedup_impressions
    assert load({"LEADPULSE_DEDUP_IMPRESSIONS": "true"}).rules().dedup_impressions
    Path("leadpulse.toml").write_text("[dedup]\nimpressions = true", encoding="utf-8")
    assert load({}).rules().dedup_impressions


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (
            {"LEADPULSE_COMMIT_INTERVAL_MS": "5"},
            (
                "commit.interval_ms (LEADPULSE_COMMIT_INTERVAL_MS): expected a whole number of "
                "milliseconds from 10 to 60000, got '5'"
            ),
        ),
        (
            {"LEADPULSE_KAFKA_EMBEDDED": "maybe"},
            "kafka.embedded (LEADPULSE_KAFKA_EMBEDDED): expected true or false, got 'maybe'",
        ),
        (
            {"LEADPULSE_KAFKA": "broker"},
            (
                "kafka.servers (LEADPULSE_KAFKA): expected host:port, several separated by commas, "
                "got 'broker'"
            ),
        ),
        (
            {"LEADPULSE_METRICS": "9464"},
            "metrics (LEADPULSE_METRICS): expected host:port, got '9464'",
        ),
        (
            {"LEADPULSE_KAFKAA": "x"},
            (
                "environment: expected a variable that LeadPulse knows, got LEADPULSE_KAFKAA; "
                "did you mean LEADPULSE_KAFKA?"
            ),
        ),
        (
            {"LEADPULSE_FUNNEL_STAGES": "customer,lead"},
            (
                "funnel.stages (LEADPULSE_FUNNEL_STAGES): expected lead, and customer after it, "
                "got customer, lead"
            ),
        ),
        (
            {"LEADPULSE_FUNNEL_ALIASES": "won=client"},
            (
                "funnel.aliases (LEADPULSE_FUNNEL_ALIASES): expected stages of the funnel "
                "(visitor, lead, mql, sql, customer), got 'client'"
            ),
        ),
        (
            {"LEADPULSE_KAFKA": "a:1", "LEADPULSE_KAFKA_SERVERS": "b:2"},
            (
                "kafka.servers: expected one variable, got both LEADPULSE_KAFKA and "
                "LEADPULSE_KAFKA_SERVERS"
            ),
        ),
        (
            {"LEADPULSE_SESSION_HEARTBEAT_SECONDS": "6"},
            (
                "session.heartbeat_seconds (LEADPULSE_SESSION_HEARTBEAT_SECONDS): expected at most "
                "half of session.timeout_seconds, got 6"
            ),
        ),
        (
            {"LEADPULSE_CONFIG": "gone.toml"},
            "gone.toml (LEADPULSE_CONFIG): expected a file to read, got No such file or directory",
        ),
        (
            {"LEADPULSE_ALERTS_WEBHOOK_URL": "https://hooks.example.com/leads"},
            ("alerts.webhook_secret: expected a secret, since alerts.webhook_url is set, got none"),
        ),
        (
            {"LEADPULSE_ALERTS_WEBHOOK_SECRET": "short"},
            (
                "alerts.webhook_secret (LEADPULSE_ALERTS_WEBHOOK_SECRET): expected text of at "
                "least 24 characters, got a value that is not shown"
            ),
        ),
        (
            {"LEADPULSE_ALERTS_WEBHOOK_URL": "hooks.example.com/leads"},
            (
                "alerts.webhook_url (LEADPULSE_ALERTS_WEBHOOK_URL): expected http://host:port/path, "
                "https://host/path or nothing, got a value that is not shown"
            ),
        ),
        (
            {"LEADPULSE_ALERTS_WEBHOOK_TIMEOUT_SECONDS": "0"},
            (
                "alerts.webhook_timeout_seconds (LEADPULSE_ALERTS_WEBHOOK_TIMEOUT_SECONDS): "
                "expected a whole number of seconds from 1 to 60, got '0'"
            ),
        ),
        (
            {"LEADPULSE_KAFKA_SASL_USERNAME": "ada"},
            (
                "kafka.security_protocol: expected SASL_…, since kafka.sasl_username is set, "
                "got PLAINTEXT"
            ),
        ),
    ],
)
def test_wrong_variable_is_named_with_what_was_expected_and_what_came(
    environ: dict[str, str], line: str
) -> None:
    assert error_of(environ) == line


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        (
            '[kafka]\nserver = "a:1"',
            (
                "leadpulse.toml: expected a key that LeadPulse knows, got kafka.server; "
                "did you mean kafka.servers?"
            ),
        ),
        (
            "[kafak]\n",
            (
                "leadpulse.toml: expected a section that LeadPulse knows, got [kafak]; "
                "did you mean [kafka]?"
            ),
        ),
        (
            "[channels.seo]\ncosts = true",
            (
                "leadpulse.toml: expected a key that LeadPulse knows, got channels.seo.costs; "
                "did you mean channels.seo.cost_expected?"
            ),
        ),
        (
            '[park]\ndays = "7"',
            "park.days (leadpulse.toml): expected a whole number of days from 1 to 400, got '7'",
        ),
        (
            '[channels."SEO!"]\ncost_expected = true',
            "channels (leadpulse.toml): expected a channel of a-z, 0-9, _, -, got SEO!",
        ),
        (
            "time_zone = 'Europe/Pari'",
            (
                "time_zone (leadpulse.toml): expected an IANA time zone such as Europe/Paris, "
                "got 'Europe/Pari'"
            ),
        ),
        (
            "currency = 'EURO'",
            "currency (leadpulse.toml): expected a currency code of ISO 4217, got 'EURO'",
        ),
        (
            "[retention]\nhour_days = 50\nday_days = 40",
            "retention.day_days (leadpulse.toml): expected at least retention.hour_days, got 40",
        ),
        (
            "[retention]\nday_days = 34",
            "retention.day_days (leadpulse.toml): expected a whole number of days from 35 to 36600, got 34",
        ),
        (
            "[retention]\nminute_hours = 1",
            "retention.minute_hours (leadpulse.toml): expected a whole number of hours from 2 to 240, got 1",
        ),
        (
            "[retention]\nhour_days = 29",
            "retention.hour_days (leadpulse.toml): expected a whole number of days from 30 to 400, got 29",
        ),
        (
            "[retention]\nday_days = 60\n[cohort]\nhorizon_days = 60",
            "retention.day_days (leadpulse.toml): expected more than cohort.horizon_days, got 60",
        ),
        (
            "[cohort]\nhorizon_days = 0",
            "cohort.horizon_days (leadpulse.toml): expected a whole number of days from 1 to 400, got 0",
        ),
    ],
)
def test_wrong_key_in_the_file_is_named_with_the_file(toml: str, line: str) -> None:
    assert error_of(toml=toml) == line


def test_file_that_is_no_toml_is_refused_with_the_line() -> None:
    line = error_of(toml="[kafka]\nservers = yes")
    assert line.startswith("leadpulse.toml: expected TOML, got ")
    assert "line 2" in line


@pytest.mark.parametrize(
    "environ",
    [
        {"LEADPULSE_REDIS": "http://ada:hunter2@host"},
        {"LEADPULSE_REDIS": "redis://ada:hunter2@host:port"},
        {"LEADPULSE_REDIS": "redis://host/0?pass=hunter2"},
        {"LEADPULSE_REDIS": "hunter2"},
        {"LEADPULSE_KAFKA": "ada:hunter2@host:9092"},
        {"LEADPULSE_ALERTS_WEBHOOK_SECRET": "hunter2"},
        {"LEADPULSE_ALERTS_WEBHOOK_URL": "ftp://host/hunter2"},
        {"LEADPULSE_ALERTS_WEBHOOK_URL": "https://host:99999/hunter2"},
        {"LEADPULSE_ALERTS_WEBHOOK_URL": "https://ada:hunter2@host/#part"},
        {"LEADPULSE_ALERTS_WEBHOOK_URL": "https://ada:hunter2@host/hook"},
        {"LEADPULSE_KAFKA_SASL_PASSWORD": "hunter2"},
        {**SASL, "LEADPULSE_KAFKA_SASL_USERNAME": ""},
    ],
)
def test_no_error_repeats_a_secret(environ: dict[str, str]) -> None:
    assert "hunter2" not in error_of(environ)


def test_no_error_repeats_a_secret_of_the_file() -> None:
    assert "12345678" not in error_of(toml="[kafka]\nsasl_password = 12345678")
    assert "12345678" not in error_of(toml="[redis]\nurl = 12345678")


def test_horizon_is_days_after_the_creation_of_a_lead() -> None:
    assert load({}).horizon_ms == 30 * 86_400_000
    assert load({"LEADPULSE_COHORT_HORIZON_DAYS": "7"}).horizon_ms == 7 * 86_400_000


def test_repr_and_shown_url_contain_no_secret() -> None:
    settings = load({**SASL, "LEADPULSE_REDIS": "rediss://ada:s3same@host:1/2"})
    assert "hunter2" not in repr(settings)
    assert "s3same" not in repr(settings)
    assert settings.redis.shown_url == "rediss://host:1/2"
    assert settings.redis.url == "rediss://ada:s3same@host:1/2"


def test_without_a_file_the_default_rules_watch() -> None:
    assert load({}).alert_rules() == DEFAULT_RULES


def test_example_of_a_rules_file_is_the_default_rules_with_every_key() -> None:
    example = Path(__file__).parents[2] / "deploy" / "alerts.toml"
    tables = tomllib.loads(example.read_text(encoding="utf-8"))
    environ = {"LEADPULSE_ALERTS_RULES": str(example)}
    assert load(environ).alert_rules() == DEFAULT_RULES
    assert list(tables) == list(KINDS)
    for kind, table in tables.items():
        assert set(table) == keys_of(kind), kind


def rules_error(toml: str) -> str:
    Path("alerts.toml").write_text(toml, encoding="utf-8")
    return error_of({"LEADPULSE_ALERTS_RULES": "alerts.toml"})


def test_examples_of_rules_of_ones_own_are_accepted() -> None:
    example = Path(__file__).parents[2] / "deploy" / "alerts.toml"
    own = example.read_text(encoding="utf-8").partition("# Rules of your own")[2]
    lines = [line.removeprefix("#").strip() for line in own.splitlines()[1:]]
    Path("alerts.toml").write_text("\n".join(lines), encoding="utf-8")

    rules = load({"LEADPULSE_ALERTS_RULES": "alerts.toml"}).alert_rules()
    assert [rule.name for rule in rules] == [*KINDS, "brand_is_cheap", "fewer_qualified"]
    assert rules[-2].campaigns == ("brand-search",)
    assert (rules[-1].kind, rules[-1].step) == ("conversion_drop", "lead.mql")


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        (
            "[cpl_spike]\np_valu = 0.01",
            "alerts.toml: cpl_spike: expected a key of cpl_spike: baseline_leads, ",
        ),
        ("[cpl_spike]\np_valu = 0.01", "got 'p_valu'; did you mean p_value?"),
        (
            "[cpl_spike]\np_value = 2",
            "alerts.toml: cpl_spike.p_value: expected a number from 1e-12 to 0.5, got 2",
        ),
        (
            "[cpl_spikes]\nratio = 2",
            "alerts.toml: cpl_spikes: expected kind to be one of cpl_spike, ",
        ),
        ("[cpl_spikes]\nratio = 2", "got 'cpl_spikes'; did you mean cpl_spike?"),
        (
            '[cpl_spike]\nchannels = ["Google Ads"]',
            (
                "alerts.toml: cpl_spike.channels: expected channels of a-z, 0-9, _, -, "
                "got 'Google Ads'"
            ),
        ),
        (
            '[conversion_drop]\nstep = "lead.mqll"',
            (
                "alerts.toml: conversion_drop.step: expected one of click_to_lead, lead.mql, "
                "mql.sql, sql.customer, got 'lead.mqll'; did you mean lead.mql?"
            ),
        ),
        (
            '[pacing_behind]\nkpis = ["leads", "stage_entered.mqll"]',
            (
                "alerts.toml: pacing_behind.kpis: expected stage_entered of a stage of the funnel "
                "(visitor, lead, mql, sql, customer), got 'stage_entered.mqll'; did you mean mql?"
            ),
        ),
        ("[cpl_spike]\nratio = yes", "alerts.toml: expected TOML, got Invalid value (at line 2"),
        ("ratio = 1", "alerts.toml: ratio: expected a table, got 1"),
    ],
)
def test_wrong_rule_is_named_with_file_table_and_key(toml: str, line: str) -> None:
    assert line in rules_error(toml)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris", "Australia/Lord_Howe"])
def test_hours_that_alerts_compare_with_are_kept_at_the_shortest_retention(zone: str) -> None:
    settings = load({"LEADPULSE_RETENTION_HOUR_DAYS": "30", "LEADPULSE_TIME_ZONE": zone})
    buckets = Buckets(Calendar(settings.time_zone), settings.retention_rule())
    calendar, first = buckets.calendar, 29_500_000
    # A year, at every minute of the hour.
    for minute in range(first, first + 366 * 1440, 61):
        head, _ = same_hours(calendar, hours_of(calendar, WINDOWS[-1], minute), WEEKS)
        assert buckets.is_kept(Grain.HOUR, head.start, minute)


def test_rules_file_that_is_not_there_is_named_with_its_setting() -> None:
    line = error_of({"LEADPULSE_ALERTS_RULES": "gone.toml"})
    assert line == (
        "gone.toml (alerts.rules): expected a file to read, got No such file or directory"
    )


def test_webhook_is_shown_without_what_may_be_a_credential() -> None:
    url = "https://ada:hunter2@hooks.example.com:8443/services/T0/s3same?key=s3same"
    secret = "s3same-s3same-s3same-s3same"
    alerts = load(
        {"LEADPULSE_ALERTS_WEBHOOK_URL": url, "LEADPULSE_ALERTS_WEBHOOK_SECRET": secret}
    ).alerts
    assert (alerts.webhook_url, alerts.webhook_secret) == (url, secret)
    assert alerts.shown_webhook == "https://hooks.example.com:8443"
    assert "s3same" not in repr(alerts)
    assert alerts.has_webhook
    assert not load({}).alerts.has_webhook
    assert load({}).alerts.shown_webhook == ""


def test_client_options_of_a_plain_broker_are_the_servers() -> None:
    options = load({"LEADPULSE_KAFKA": "a:1"}).kafka.client_options()
    assert options == {"bootstrap_servers": "a:1", "security_protocol": "PLAINTEXT"}


def test_client_options_carry_credentials() -> None:
    options = load(SASL).kafka.client_options()
    assert options["security_protocol"] == "SASL_PLAINTEXT"
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert options["sasl_plain_username"] == "ada"
    assert options["sasl_plain_password"] == "hunter2"


def test_client_options_with_tls_check_the_broker_s_name() -> None:
    options = load({"LEADPULSE_KAFKA_SECURITY_PROTOCOL": "SSL"}).kafka.client_options()
    assert options["ssl_context"].check_hostname


def test_certificate_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate", encoding="utf-8")
    environ = {
        "LEADPULSE_KAFKA_SECURITY_PROTOCOL": "SSL",
        "LEADPULSE_KAFKA_SSL_CAFILE": str(tmp_path / "ca.pem"),
    }
    assert "expected certificates in PEM" in error_of(environ)
    assert "expected a file to read" in error_of(
        {**environ, "LEADPULSE_KAFKA_SSL_CAFILE": "gone.pem"}
    )


def test_checksums_are_not_checked_where_the_broker_cannot_make_them() -> None:
    assert load({}).kafka.consumer_options()["check_crcs"]
    assert not load({"LEADPULSE_KAFKA_EMBEDDED": "1"}).kafka.consumer_options()["check_crcs"]


@given(st.text(max_size=12) | st.integers(-9, 500).map(str))
def test_any_text_for_a_number_is_the_number_or_refused(text: str) -> None:
    environ = {"LEADPULSE_PARK_DAYS": text}
    if re.fullmatch("0*[0-9]{1,3}", text.strip(), re.ASCII) and 1 <= int(text) <= 400:
        assert load(environ).park.days == int(text)
    else:
        assert error_of(environ).startswith("park.days (LEADPULSE_PARK_DAYS): expected")


@given(
    st.sampled_from(["KAFKA", "REDIS", "METRICS", "TIME_ZONE", "FUNNEL_STAGES", "FUNNEL_ALIASES"]),
    st.text(max_size=60),
)
def test_any_text_for_any_key_is_read_or_refused_in_one_line(name: str, text: str) -> None:
    refused = ""
    try:
        load({f"LEADPULSE_{name}": text})
    except SettingsError as error:
        refused = str(error)
    assert "\n" not in refused


def test_variables_of_a_kubernetes_service_named_leadpulse_are_no_settings() -> None:
    address = "tcp://10.0.0.7:9464"
    environ = {
        "LEADPULSE_PORT": address,
        "LEADPULSE_PORT_9464_TCP": address,
        "LEADPULSE_PORT_9464_TCP_ADDR": "10.0.0.7",
        "LEADPULSE_PORT_9464_TCP_PORT": "9464",
        "LEADPULSE_PORT_9464_TCP_PROTO": "tcp",
        "LEADPULSE_SERVICE_HOST": "10.0.0.7",
        "LEADPULSE_SERVICE_PORT": "9464",
        "LEADPULSE_SERVICE_PORT_METRICS": "9464",
    }
    assert load(environ) == load({})


@pytest.mark.parametrize("name", ["LEADPULSE_PORTS", "LEADPULSE_PORT_A", "LEADPULSE_SERVICE"])
def test_variables_that_only_look_like_those_of_kubernetes_are_refused(name: str) -> None:
    assert name in error_of({name: "1"})
