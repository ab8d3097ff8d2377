import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.catalog import (
    NO_SURROUNDINGS,
    Progress,
    Surroundings,
    Undefined,
    Value,
    derived,
    unit_of,
)
from kpis.facts import BASES, COHORT, OVERALL, PERIOD, Facts, Scope
from kpis.money import MICROS
from kpis.spans import KINDS, LIFETIME_WINDOW, ROLLING, TUMBLING, Window
from kpis.targets import Target
from kpis.windows import (
    FINAL,
    NOT_STORED,
    PROVISIONAL,
    REVISED,
    Key,
    Record,
    WindowValues,
    amount_text,
    changed,
    decimal_text,
    escaped,
    facts_of,
    for_ledger,
    key_of,
    micros_of,
    parse_key,
    record,
    scope_of,
    scope_parts,
    shown_facts,
    unescaped,
)
from tests.examples import A_PROPERTY
from tests.kpis.numbers import CATALOG, windows

PARIS = ZoneInfo("Europe/Paris")
CAMPAIGN = Scope("google_ads", "c-42")
# The day on which Paris goes to summer time: 23 hours.
SHORT_DAY = Window(
    "1d",
    int(datetime(2026, 3, 28, 23, tzinfo=UTC).timestamp()) // 60,
    int(datetime(2026, 3, 29, 22, tzinfo=UTC).timestamp()) // 60,
)
NOON_MS = int(datetime(2026, 3, 29, 12, 2, 10, tzinfo=UTC).timestamp()) * 1000

texts = st.text(min_size=1, max_size=20).filter(lambda text: text != "_all")
scopes = st.one_of(
    st.just(OVERALL), st.builds(Scope, texts, st.none()), st.builds(Scope, texts, texts)
)


def values_of(
    facts: Facts,
    *,
    basis: str = PERIOD,
    scope: Scope = CAMPAIGN,
    window: Window = SHORT_DAY,
    kpis: dict[str, Value] | None = None,
    around: Surroundings = NO_SURROUNDINGS,
    complete_until_ms: int | None = NOON_MS,
    computed_at_ms: int = NOON_MS + 412,
    state: str = PROVISIONAL,
    revision: int = 0,
    cause: str | None = None,
    previous: dict[str, Value] | None = None,
) -> WindowValues:
    return WindowValues(
        basis=basis,
        scope=scope,
        window=window,
        facts=facts,
        kpis=CATALOG.evaluate(basis, facts, around) if kpis is None else kpis,
        complete_until_ms=complete_until_ms,
        computed_at_ms=computed_at_ms,
        surroundings=around,
        state=state,
        revision=revision,
        cause=cause,
        previous=previous,
    )


def encoded(values: WindowValues) -> bytes:
    return record(values, CATALOG, PARIS, "EUR").value


def told_by(values: WindowValues) -> Any:
    return json.loads(encoded(values), parse_float=Decimal)


# ----------------------------------------------------------------------------- the value


def test_a_record_is_the_json_of_the_contract() -> None:
    facts = {"impressions": 10_000, "clicks": 300, "cost": 600 * MICROS, "leads_gross": 28}
    kpis: dict[str, Value] = {
        "ctr": 30_000,
        "cpl": 21_428_571,
        "roi": 5_500_000,
        "cac": Undefined("no_customers"),
    }

    decoded = told_by(values_of(facts, kpis=kpis))

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
            "ctr": {
                "value": Decimal("0.03"),
                "interval": [Decimal("0.026833"), Decimal("0.033528")],
            },
            "cpl": {
                "value": Decimal("21.428571"),
                "interval": [Decimal("14.826604"), Decimal("32.248014")],
            },
            "roi": {"value": Decimal("5.5")},
            "cac": {"value": None, "undefined_reason": "no_customers"},
        },
    }


def test_lifetime_and_overall_are_null_in_the_value_and_what_is_unknown_too() -> None:
    decoded = told_by(
        values_of({"clicks": 1}, scope=OVERALL, window=LIFETIME_WINDOW, complete_until_ms=None)
    )

    assert decoded["scope"] == {"channel": None, "campaign_id": None}
    assert decoded["window"]["start"] is decoded["window"]["end"] is None
    assert decoded["complete_until"] is None


def test_a_rolling_record_carries_its_real_start_and_end() -> None:
    rolling = Window("last_1h", SHORT_DAY.start_minute, SHORT_DAY.end_minute)
    decoded = told_by(values_of({"clicks": 1}, window=rolling))

    assert decoded["window"]["start"] == "2026-03-29T00:00:00+01:00"
    assert decoded["window"]["end"] == "2026-03-30T00:00:00+02:00"


def test_only_a_revision_shows_what_was_before() -> None:
    before: dict[str, Value] = {"cpl": 20_714_286, "cac": Undefined("no_customers"), "roi": 1}
    now: dict[str, Value] = {"cpl": 21_428_571, "cac": 5, "roi": 1}
    values = values_of(
        {"clicks": 1},
        kpis={},
        state=REVISED,
        revision=3,
        cause="cost_restated",
        previous=changed(now, before),
    )

    decoded = told_by(values)

    assert (decoded["state"], decoded["revision"]) == ("revised", 3)
    assert decoded["cause"] == "cost_restated"
    assert decoded["previous"] == {"cpl": Decimal("20.714286"), "cac": None}
    assert "previous" not in told_by(values_of({"clicks": 1}))


def test_what_is_partial_approximate_or_implausible_says_so() -> None:
    facts = {"cost": 5, "cost_records": 1, "leads_gross": 9, "visitors": 3, "fx_missing": 1}
    facts |= {"cycle_count": 1, "cycle_histogram.7": 1, "revenue_gross": 5}
    kpis = told_by(values_of(facts, around=Surroundings(expected=2, covered=1)))["kpis"]

    def saying(word: str) -> set[str]:
        assert all(kpi.get(word, True) is True for kpi in kpis.values())
        return {name for name, kpi in kpis.items() if word in kpi}

    assert saying("partial") == {
        *("cpl", "cpl_gross", "roi", "roas", "revenue_per_lead", "net_profit_per_lead"),
    }
    assert saying("approximate") == {
        *("visitor_to_lead", "purchase_cycle_p50", "purchase_cycle_p90"),
    }
    assert saying("implausible") == {"visitor_to_lead"}


def test_a_histogram_is_one_object_in_the_order_of_its_buckets() -> None:
    facts = {"cycle_histogram.12": 2, "cycle_histogram.3": 1, "cycle_count": 3, "sales": 3}
    value = encoded(values_of(facts))

    assert b'"cycle_histogram":{"3":1,"12":2}' in value
    assert facts_of(value) == facts


def test_mature_leads_are_shown_and_are_no_part_of_the_id() -> None:
    ripe = values_of({"leads": 3}, basis=COHORT, around=Surroundings(mature_leads=2))
    green = values_of({"leads": 3}, basis=COHORT)

    assert told_by(ripe)["facts"] == {"leads": 3, "mature": 2}
    assert told_by(green)["facts"] == {"leads": 3}
    assert told_by(ripe)["id"] == told_by(green)["id"]
    assert shown_facts(encoded(ripe)) == {"leads": 3, "mature": 2}
    assert facts_of(encoded(ripe)) == {"leads": 3}


def test_targets_are_among_the_kpis() -> None:
    target = Target("leads", "day", 0, 1, 4 * MICROS)
    around = Surroundings(targets=(Progress(target, Fraction(1, 2)),))

    kpis = told_by(values_of({"leads_gross": 1}, around=around))["kpis"]

    assert kpis["target_attainment.leads"] == {"value": Decimal("0.25")}
    assert kpis["pacing.leads"] == {"value": Decimal("0.5")}


# ----------------------------------------------------------------------------- the key


def test_the_key_of_a_tumbling_window_has_its_local_start() -> None:
    made = key_of("period", SHORT_DAY, CAMPAIGN, PARIS)

    assert made == b"period|1d|2026-03-29T00:00:00+01:00|google_ads|c-42"


@pytest.mark.parametrize("kind", ["lifetime", *ROLLING])
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


@A_PROPERTY
@given(
    basis=st.sampled_from(BASES),
    kind=st.sampled_from(KINDS),
    minute=st.integers(15_778_080, 68_374_080),
    scope=scopes,
    zone=st.sampled_from([UTC, PARIS, ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/St_Johns")]),
)
def test_a_key_says_what_it_was_made_of(
    basis: str, kind: str, minute: int, scope: Scope, zone: ZoneInfo
) -> None:
    made = key_of(basis, Window(kind, minute, minute + 1), scope, zone)

    assert parse_key(made) == Key(basis, kind, minute if kind in TUMBLING else None, scope)


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


# ----------------------------------------------------------------------------- back again


@A_PROPERTY
@given(window=windows)
def test_facts_come_back_exactly_and_kpis_have_a_reason_or_a_value(
    window: tuple[str, Facts, Surroundings],
) -> None:
    # P12
    basis, facts, around = window
    values = values_of(facts, basis=basis, around=around)
    value = encoded(values)

    mature = {"mature": around.mature_leads} if around.mature_leads else {}
    assert shown_facts(value) == derived(facts, basis) | mature
    stored = {name: fact for name, fact in facts.items() if name not in NOT_STORED[basis]}
    assert facts_of(value) == stored
    told = json.loads(value, parse_float=Decimal)["kpis"]
    assert list(told) == list(values.kpis)
    for name, kpi in told.items():
        expected = values.kpis[name]
        if isinstance(expected, Undefined):
            assert kpi == {"value": None, "undefined_reason": expected.reason}
        else:
            assert kpi["value"] * MICROS == expected
            assert "undefined_reason" not in kpi
            assert kpi.get("implausible", False) == (unit_of(name) == "share" and expected > MICROS)


def test_zeros_are_left_out() -> None:
    value = encoded(values_of({"clicks": 0, "sales": 1, "cycle_histogram.3": 0}, kpis={}))

    assert json.loads(value)["facts"] == {"sales": 1}


@pytest.mark.parametrize("bad", [b'{"basis": "period", "facts": []}', b"{}", b"[", b""])
def test_a_value_that_is_none_is_refused(bad: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        facts_of(bad)


def test_names_of_stages_are_escaped() -> None:
    facts = {'stage_entered.a"b\n': 1}

    assert facts_of(encoded(values_of(facts, kpis={}))) == facts


def test_the_id_changes_with_key_revision_and_facts_but_not_with_their_order() -> None:
    def record_id(values: WindowValues) -> str:
        return str(told_by(values)["id"])

    one = record_id(values_of({"clicks": 1, "sales": 2}))
    others = [
        record_id(values_of({"clicks": 1, "sales": 3})),
        record_id(values_of({"clicks": 1, "sales": 2}, revision=1)),
        record_id(values_of({"clicks": 1, "sales": 2}, scope=OVERALL)),
        record_id(values_of({"clicks": 1, "sales": 2}, basis=COHORT)),
    ]

    assert record_id(values_of({"sales": 2, "clicks": 1}, complete_until_ms=None)) == one
    assert len({one, *others}) == 5


# ----------------------------------------------------------------------------- headers


def test_headers_are_a_cloud_event() -> None:
    made = record(values_of({"clicks": 1}), CATALOG, PARIS, "EUR", source="/leadpulse/shop")

    assert dict(made.headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"leadgen.kpis.updated.v1",
        "ce_source": b"/leadpulse/shop",
        "ce_id": f"{json.loads(made.value)['id']}-{NOON_MS + 412}".encode(),
        "ce_time": b"2026-03-29T12:02:10.412Z",
        "content-type": b"application/json",
    }
    assert made.key == key_of(PERIOD, SHORT_DAY, CAMPAIGN, PARIS)


@pytest.mark.parametrize(
    ("state", "told"),
    [(FINAL, b"leadgen.kpis.window_final.v1"), (REVISED, b"leadgen.kpis.window_revised.v1")],
)
def test_the_ledger_has_the_same_value_as_another_event(state: str, told: bytes) -> None:
    made = record(values_of({"clicks": 1}, state=state, revision=1), CATALOG, PARIS, "EUR")

    ledger = for_ledger(made, state)

    assert (ledger.key, ledger.value) == (made.key, made.value)
    own = {"ce_type": told, "ce_id": json.loads(made.value)["id"].encode()}
    assert dict(ledger.headers) == dict(made.headers) | own
    assert [name for name, _ in ledger.headers] == [name for name, _ in made.headers]


def test_no_two_events_of_a_window_have_one_id() -> None:
    """By CloudEvents source and id tell events apart, whatever their types."""

    def event(clicks: int, after_ms: int, revision: int = 0) -> Record:
        state = FINAL if revision else PROVISIONAL
        at_ms = NOON_MS + after_ms
        values = values_of({"clicks": clicks}, computed_at_ms=at_ms, state=state, revision=revision)
        return record(values, CATALOG, PARIS, "EUR")

    final = event(1, 3, revision=1)
    events = [
        event(1, 0),
        event(2, 1),
        event(1, 2),  # as at first
        final,
        for_ledger(final, FINAL),
        event(1, 4, revision=1),  # only its pacing is another
    ]

    assert len({dict(one.headers)["ce_id"] for one in events}) == len(events)
    assert event(1, 0).headers == events[0].headers


def test_provisional_values_do_not_go_to_the_ledger() -> None:
    made = record(values_of({"clicks": 1}), CATALOG, PARIS, "EUR")

    with pytest.raises(KeyError):
        for_ledger(made, PROVISIONAL)
