"""Alerts as records: keys, values, headers and what they say in two languages."""

from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.alert_records import alert_key, alert_of, alert_record, alert_value
from kpis.alert_rules import DEFAULTS, KINDS
from kpis.alerts import Alert, Condition, Evidence, Finding, State, alert_id
from kpis.decomposition import CampaignPart, Explanation, Part
from kpis.facts import OVERALL, Scope
from kpis.money import MICROS
from kpis.spans import Window
from kpis.windows import key_of
from tests.kpis.alert_worlds import minute

PARIS = ZoneInfo("Europe/Paris")
BRAND = Scope("google_ads", "brand-search")
NOW = minute("2026-06-30T12:30:00+02:00")
SPIKE = Evidence(
    cost=720 * MICROS,
    leads=20,
    expected=Fraction(36),
    baseline=Fraction(20),
    baseline_kind="same_hours",
    p_value=0.00283,
    ratio=Fraction(9, 5),
)
WHY = Explanation(
    cpc=Part(2.0, 2.4, 0.31),
    click_to_lead=Part(0.1, 0.0667, 0.69),
    campaigns=(CampaignPart("google_ads", "brand", "1234.500000", "2000.000000", 3),),
)


def an_alert(
    evidence: Evidence = SPIKE,
    kind: str = "cpl_spike",
    state: State = "fired",
    condition: Condition = "fires",
    scope: Scope = BRAND,
) -> Alert:
    finding = Finding(
        rule=DEFAULTS[kind],
        scope=scope,
        minute=NOW,
        window=Window("last_6h", NOW - 390, NOW + 30),
        condition=condition,
        evidence=evidence,
    )
    number = 1 if state == "fired" else 2
    since_ms = NOW * 60_000
    name = alert_id(kind, scope, since_ms, state, number)
    return Alert(
        id=name, state=state, finding=finding, at_ms=since_ms, since_ms=since_ms, number=number
    )


def said(alert: Alert, explanation: Explanation | None = None) -> tuple[str, str]:
    value = alert_value(alert, explanation, PARIS, "EUR")
    return value.message_en, value.message_fr


def test_the_value_is_what_the_contract_says_in_its_order() -> None:
    record = alert_record(alert_value(an_alert(), WHY, PARIS, "EUR"))
    value: dict[str, Any] = msgspec.json.decode(record.value)
    assert list(value) == [
        "version",
        "id",
        "rule",
        "state",
        "scope",
        "window",
        "at",
        "since",
        "evidence",
        "explanation",
        "message_en",
        "message_fr",
    ]
    assert value["scope"] == {"channel": "google_ads", "campaign_id": "brand-search"}
    assert value["window"] == {
        "kind": "last_6h",
        "start": "2026-06-30T06:00:00+02:00",
        "end": "2026-06-30T13:00:00+02:00",
        "time_zone": "Europe/Paris",
    }
    assert value["evidence"] == {
        "cost": "720.000000",
        "leads": 20,
        "expected": 36.0,
        "baseline": 20.0,
        "baseline_kind": "same_hours",
        "p_value": 0.00283,
        "ratio": 1.8,
    }
    assert alert_of(record.value).id == value["id"]


def test_keys_are_escaped_as_those_of_windows_are() -> None:
    assert alert_key("cpl_spike", OVERALL) == b"cpl_spike|_all|_all"
    scope = Scope("google_ads", "a|b é")
    tail = key_of("period", Window("last_1h", 0, 60), scope, PARIS).split(b"|", 3)[3]
    assert alert_key("cpl_spike", scope) == b"cpl_spike|" + tail


@pytest.mark.parametrize("state", ["fired", "updated", "resolved"])
def test_headers_are_those_of_cloud_events(state: State) -> None:
    record = alert_record(alert_value(an_alert(state=state), None, PARIS, "EUR"))
    headers = dict(record.headers)
    assert headers["ce_type"] == f"leadgen.alerts.{state}.v1".encode()
    assert headers["ce_id"].decode() == alert_of(record.value).id
    assert headers["ce_time"] == b"2026-06-30T10:30:00Z"


def test_a_spike_is_told_with_its_numbers_and_reasons_in_both_languages() -> None:
    english, french = said(an_alert(), WHY)
    assert english.replace("\N{NO-BREAK SPACE}", " ") == (
        "CPL of google_ads/brand-search is 36.00 EUR, 1.8 times its usual 20.00 EUR (same hours of "
        "the last 4 weeks): in the last 6 h 720.00 EUR brought 20 leads where 36 were expected "
        "(p = 0.0028). Of the rise 69 % is click-to-lead (10.0 % → 6.7 %), 31 % is cost per click "
        "(2.00 → 2.40 EUR). Most of it: google_ads/brand (+1,234.50 EUR)."
    )
    assert "36,00\N{NO-BREAK SPACE}EUR, soit 1,8 fois" in french
    assert "+1\N{NARROW NO-BREAK SPACE}234,50\N{NO-BREAK SPACE}EUR" in french
    assert "p = 0,0028" in french


def test_no_lead_has_no_cpl_and_is_said_so() -> None:
    evidence = msgspec.structs.replace(SPIKE, leads=0, ratio=None, expected=Fraction(6))
    english, french = said(an_alert(evidence), Explanation(clicks=50, usual_clicks=300.0))
    assert "brought no lead where 6 were expected" in english
    assert "It bought 50 clicks; usually 300." in english
    assert "aucun lead au lieu de 6 attendus" in french


def test_what_is_one_is_no_plural() -> None:
    evidence = msgspec.structs.replace(SPIKE, leads=1, expected=Fraction(3, 2))
    english, french = said(an_alert(evidence), Explanation(clicks=1, usual_clicks=1.0))
    assert "brought 1 lead where 1.5 were expected" in english
    assert "It bought 1 click; usually 1." in english
    assert "ont rapporté 1 lead au lieu de 1,5 attendu (" in french


@pytest.mark.parametrize(
    ("changes", "english", "french"),
    [
        ({"ratio": Fraction(6, 5)}, "is back at 36.00", "est revenu à 36,00"),
        ({}, "the alert is over, in the last 6 h 720.00", "est levée, sur les 6 dernières heures"),
        ({"leads": 0, "ratio": None}, "brought no lead where 36 were expected: that may", "hasard"),
        ({"baseline": None, "baseline_kind": None}, "hardly anything was spent", "presque rien"),
    ],
)
def test_an_end_is_told_as_what_it_is(changes: dict[str, Any], english: str, french: str) -> None:
    evidence = msgspec.structs.replace(SPIKE, **changes)
    told = said(an_alert(evidence, state="resolved", condition="well"))
    assert english in told[0].replace("\N{NO-BREAK SPACE}", " ").replace("CPL alert", "alert")
    assert french in told[1].replace("\N{NO-BREAK SPACE}", " ")


def test_amounts_behind_a_target_have_their_currency() -> None:
    evidence = Evidence(
        expected=Fraction(500),
        baseline=Fraction(1000),
        ratio=Fraction(1, 2),
        kpi="revenue_net",
        actual=Fraction(250),
        elapsed=Fraction(1, 2),
    )
    english, _ = said(an_alert(evidence, "pacing_behind"))
    assert "250.00\N{NO-BREAK SPACE}EUR where 500.00\N{NO-BREAK SPACE}EUR are asked for" in english
    assert "target 1,000.00\N{NO-BREAK SPACE}EUR" in english


def test_a_chance_too_small_to_write_is_said_to_be_below_one_that_is_not() -> None:
    evidence = msgspec.structs.replace(SPIKE, p_value=1e-30)
    assert "(p < 0.0001)" in said(an_alert(evidence))[0]


fractions = st.fractions(0, 10**7, max_denominator=1000)
evidences = st.builds(
    Evidence,
    cost=st.none() | st.integers(0, 10**15),
    leads=st.none() | st.integers(0, 10**7),
    expected=st.none() | fractions,
    baseline=st.none() | fractions,
    baseline_kind=st.sampled_from((None, "same_hours", "last_7_days", "target")),
    p_value=st.none() | st.floats(0, 1),
    ratio=st.none() | fractions,
    trials=st.none() | st.integers(0, 1000),
    successes=st.none() | st.integers(0, 1000),
    kpi=st.none() | st.just("leads"),
    actual=st.none() | fractions,
    elapsed=st.none() | fractions,
)


@given(
    evidences,
    st.sampled_from(KINDS),
    st.sampled_from(
        (("fired", "fires"), ("updated", "fires"), ("resolved", "well"), ("resolved", "silent"))
    ),
    st.sampled_from((BRAND, OVERALL, Scope("seo", None))),
)
def test_whatever_the_evidence_a_record_can_be_written_and_read_again(
    evidence: Evidence, kind: str, phase: tuple[State, Condition], scope: Scope
) -> None:
    value = alert_value(an_alert(evidence, kind, *phase, scope), None, PARIS, "EUR")
    assert alert_of(alert_record(value).value) == value
    for message in (value.message_en, value.message_fr):
        assert message
        assert "None" not in message


def test_every_message_of_every_kind_differs_from_language_to_language() -> None:
    for kind in KINDS:
        for state, condition in (("fired", "fires"), ("resolved", "well")):
            alert = an_alert(kind=kind, state=state, condition=condition)  # type: ignore[arg-type]
            english, french = said(alert)
            assert english != french
