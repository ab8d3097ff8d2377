import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.catalog import Catalog, Undefined, Value
from kpis.facts import OVERALL, Facts, Scope, additive_facts
from kpis.money import MICROS
from kpis.windows import (
    KINDS,
    TUMBLING,
    Key,
    Window,
    WindowValues,
    amount_text,
    decimal_text,
    escaped,
    facts_of,
    headers,
    instant_text,
    key,
    key_of,
    micros_of,
    parse_key,
    record,
    scope_of,
    scope_parts,
    unescaped,
    value,
)

PARIS = ZoneInfo("Europe/Paris")
FUNNEL = ("visitor", "lead", "mql", "sql", "customer")
CATALOG = Catalog(FUNNEL)
CAMPAIGN = Scope("google_ads", "c-42")
# The day on which Paris goes to summer time: 23 hours.
SHORT_DAY = Window(
    "1d",
    int(datetime(2026, 3, 28, 23, tzinfo=UTC).timestamp()) // 60,
    int(datetime(2026, 3, 29, 22, tzinfo=UTC).timestamp()) // 60,
)
LIFETIME = Window("lifetime", None, None)
NOON_MS = int(datetime(2026, 3, 29, 12, 2, 10, tzinfo=UTC).timestamp()) * 1000

texts = st.text(min_size=1, max_size=20).filter(lambda text: text != "_all")
scopes = st.one_of(
    st.just(OVERALL), st.builds(Scope, texts, st.none()), st.builds(Scope, texts, texts)
)


def values_of(
    facts: Facts,
    *,
    scope: Scope = CAMPAIGN,
    window: Window = SHORT_DAY,
    kpis: dict[str, Value] | None = None,
    complete_until_ms: int | None = NOON_MS,
    revision: int = 0,
) -> WindowValues:
    return WindowValues(
        basis="period",
        scope=scope,
        window=window,
        facts=facts,
        kpis=CATALOG.evaluate(facts, cost_expected=False) if kpis is None else kpis,
        complete_until_ms=complete_until_ms,
        computed_at_ms=NOON_MS + 412,
        revision=revision,
    )


def test_a_record_is_the_json_of_the_contract() -> None:
    facts = {"impressions": 10_000, "clicks": 300, "cost": 600 * MICROS, "leads_gross": 28}
    kpis: dict[str, Value] = {
        "ctr": 1_250_000,
        "cpl": 21_428_571,
        "roi": 5_500_000,
        "cac": Undefined("no_customers"),
    }

    decoded = json.loads(value(values_of(facts, kpis=kpis), PARIS, "EUR"), parse_float=Decimal)

    assert re.fullmatch("[0-9a-f]{16}", decoded.pop("id"))
    assert decoded == {
        "version": 1,
        "basis": "period",
        "scope": {"channel": "google_ads", "campaign_id": "c-42"},
        "window": {
            "kind": "1d",
            "start": "2026-03-29T00:00:00+01:00",
            "end": "2026-03-30T00:00:00+02:00",
            "time_zone": "Europe/Paris",
        },
        "state": "provisional",
        "revision": 0,
        "cause": None,
        "complete_until": "2026-03-29T12:02:10Z",
        "computed_at": "2026-03-29T12:02:10.412Z",
        "currency": "EUR",
        "facts": {
            "impressions": 10_000,
            "clicks": 300,
            "cost": "600.000000",
            "leads_gross": 28,
            "leads": 28,
        },
        "kpis": {
            "ctr": {"value": Decimal("1.25"), "implausible": True},
            "cpl": {"value": Decimal("21.428571")},
            "roi": {"value": Decimal("5.5")},
            "cac": {"value": None, "undefined_reason": "no_customers"},
        },
    }


def test_lifetime_and_overall_are_null_in_the_value_and_what_is_unknown_too() -> None:
    values = values_of({"clicks": 1}, scope=OVERALL, window=LIFETIME, complete_until_ms=None)

    decoded = json.loads(value(values, PARIS, "EUR"))

    assert decoded["scope"] == {"channel": None, "campaign_id": None}
    assert decoded["window"]["start"] is decoded["window"]["end"] is None
    assert decoded["complete_until"] is None


def test_a_rolling_record_carries_its_real_start_and_end() -> None:
    rolling = Window("last_1h", SHORT_DAY.start_minute, SHORT_DAY.end_minute)
    decoded = json.loads(value(values_of({"clicks": 1}, window=rolling), PARIS, "EUR"))

    assert decoded["window"]["start"] == "2026-03-29T00:00:00+01:00"
    assert decoded["window"]["end"] == "2026-03-30T00:00:00+02:00"


def test_the_key_of_a_tumbling_window_has_its_local_start() -> None:
    assert key(values_of({}), PARIS) == b"period|1d|2026-03-29T00:00:00+01:00|google_ads|c-42"


@pytest.mark.parametrize("kind", ["lifetime", "last_1h", "last_24h"])
def test_windows_that_move_have_one_key(kind: str) -> None:
    window = Window(kind, None, None) if kind == "lifetime" else Window(kind, 60, 120)

    assert key_of("period", window, OVERALL, PARIS) == f"period|{kind}|-|_all|_all".encode()


def test_an_hour_that_occurs_twice_has_two_keys() -> None:
    first = int(datetime(2026, 10, 25, 0, tzinfo=UTC).timestamp()) // 60
    keys = [
        key_of("period", Window("1h", start, start + 60), OVERALL, PARIS)
        for start in (first, first + 60)
    ]

    assert keys == [
        b"period|1h|2026-10-25T02:00:00+02:00|_all|_all",
        b"period|1h|2026-10-25T02:00:00+01:00|_all|_all",
    ]


@given(
    kind=st.sampled_from(KINDS),
    minute=st.integers(15_778_080, 68_374_080),
    scope=scopes,
    zone=st.sampled_from([UTC, PARIS, ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/St_Johns")]),
)
def test_a_key_says_what_it_was_made_of(
    kind: str, minute: int, scope: Scope, zone: ZoneInfo
) -> None:
    made = key_of("period", Window(kind, minute, minute + 1), scope, zone)

    assert parse_key(made) == Key("period", kind, minute if kind in TUMBLING else None, scope)


@pytest.mark.parametrize("bad", [b"", b"a|b", b"\xff|1d|-|_all|_all", b"period|1d|noon|_all|_all"])
def test_a_key_that_is_none_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match="key: expected"):
        parse_key(bad)


def test_all_but_the_safe_characters_are_escaped() -> None:
    assert escaped("Été|50%/a b_c.d:e+f-g") == "%C3%89t%C3%A9%7C50%25%2Fa%20b_c.d:e+f-g"


@given(part=st.text())
def test_escaping_can_be_undone(part: str) -> None:
    assert re.fullmatch("[A-Za-z0-9_.:+%-]*", escaped(part))
    assert unescaped(escaped(part)) == part


@given(scope=scopes)
def test_the_parts_of_a_scope_name_it(scope: Scope) -> None:
    assert scope_of(*scope_parts(scope)) == scope


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0.0"),
        (2_000_000, "2.0"),
        (21_428_571, "21.428571"),
        (5_500_000, "5.5"),
        (1, "0.000001"),
        (-1, "-0.000001"),
        (-2_000_000, "-2.0"),
        (-1_500_000, "-1.5"),
        (10**24 + 1, "1000000000000000000.000001"),
    ],
)
def test_decimals_are_plain_and_short(micros: int, text: str) -> None:
    assert decimal_text(micros) == text


@given(micros=st.integers())
def test_no_digit_is_lost_in_texts(micros: int) -> None:
    assert Decimal(decimal_text(micros)) == Decimal(amount_text(micros))
    assert micros_of(amount_text(micros)) == micros_of(decimal_text(micros)) == micros


def test_amounts_have_six_decimals() -> None:
    assert amount_text(600_000_000) == "600.000000"
    assert amount_text(-1) == "-0.000001"


def test_whole_seconds_have_no_fraction() -> None:
    assert instant_text(NOON_MS) == "2026-03-29T12:02:10Z"
    assert instant_text(NOON_MS + 7) == "2026-03-29T12:02:10.007Z"


@given(
    facts=st.dictionaries(
        st.sampled_from(additive_facts(FUNNEL)),
        st.integers(-(10**17), 10**17).filter(bool),
        max_size=10,
    )
)
def test_facts_come_back_exactly_and_kpis_have_a_reason_or_a_value(facts: Facts) -> None:
    encoded = value(values_of(facts), PARIS, "EUR")

    assert facts_of(encoded) == facts
    for kpi in json.loads(encoded)["kpis"].values():
        assert (kpi["value"] is None) == ("undefined_reason" in kpi)


def test_zeros_are_left_out() -> None:
    assert b'"clicks"' not in value(values_of({"clicks": 0, "sales": 1}, kpis={}), PARIS, "EUR")


def test_a_value_that_is_none_is_refused() -> None:
    with pytest.raises(msgspec.MsgspecError):
        facts_of(b'{"facts": []}')


def test_names_of_stages_are_escaped() -> None:
    facts = {'stage_entered.a"b\n': 1}

    assert facts_of(value(values_of(facts, kpis={}), PARIS, "EUR")) == facts


def test_the_id_changes_with_key_revision_and_facts_but_not_with_their_order() -> None:
    def record_id(values: WindowValues) -> str:
        return str(json.loads(value(values, PARIS, "EUR"))["id"])

    one = record_id(values_of({"clicks": 1, "sales": 2}))
    others = [
        record_id(values_of({"clicks": 1, "sales": 3})),
        record_id(values_of({"clicks": 1, "sales": 2}, revision=1)),
        record_id(values_of({"clicks": 1, "sales": 2}, scope=OVERALL)),
    ]

    assert record_id(values_of({"sales": 2, "clicks": 1}, complete_until_ms=None)) == one
    assert len({one, *others}) == 4


def test_headers_are_a_cloud_event() -> None:
    values = values_of({"clicks": 1})
    made = record(values, PARIS, "EUR", source="/leadpulse/shop")

    assert dict(made.headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"leadgen.kpis.updated.v1",
        "ce_source": b"/leadpulse/shop",
        "ce_id": json.loads(made.value)["id"].encode(),
        "ce_time": b"2026-03-29T12:02:10.412Z",
        "content-type": b"application/json",
    }
    assert made.headers == headers(values, json.loads(made.value)["id"], "/leadpulse/shop")
    assert made.key == key(values, PARIS)
