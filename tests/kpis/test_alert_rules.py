"""Rules as TOML writes them."""

import tomllib
from typing import Any

import pytest

from kpis.alert_rules import DEFAULT_RULES, KINDS, Rule, RuleError, rules_of
from kpis.calendar import DAY_MINUTES, HOUR_MINUTES
from kpis.detector import Detector
from kpis.evaluation import TARGET_FACTS
from kpis.facts import OVERALL, Scope
from kpis.money import MICROS
from kpis.targets import Target
from tests.kpis.alert_worlds import World, minute


def rules(text: str) -> dict[str, Rule]:
    return {rule.name: rule for rule in rules_of(tomllib.loads(text), "rules.toml")}


def test_without_a_word_there_is_one_rule_of_each_kind() -> None:
    assert tuple(rule.kind for rule in DEFAULT_RULES) == KINDS
    assert tuple(rules("").values()) == DEFAULT_RULES


def test_the_contract_s_thresholds_are_the_defaults_of_a_cpl_spike() -> None:
    rule = rules("")["cpl_spike"]
    assert rule.windows == ("last_1h", "last_6h", "last_24h")
    assert (rule.p_value, rule.resolve_p_value, rule.ratio) == (0.01, 0.2, 1.5)
    assert (rule.baseline_leads, rule.coverage) == (20, 0.9)
    assert (rule.evaluations, rule.cooldown_minutes) == (2, 360)


def test_a_table_of_a_kind_s_name_changes_its_default_and_nothing_else() -> None:
    changed = rules('[cpl_spike]\np_value = 0.001\nwindows = ["last_24h", "last_6h"]')
    assert changed["cpl_spike"].p_value == 0.001
    assert changed["cpl_spike"].windows == ("last_6h", "last_24h")
    assert changed["leads_stopped"] == rules("")["leads_stopped"]


def test_another_name_needs_its_kind_and_comes_beside_the_default() -> None:
    found = rules('[brand]\nkind = "cpl_spike"\ncampaigns = ["b"]\nlevels = ["campaign"]')
    assert found["brand"].kind == "cpl_spike"
    assert found["brand"].concerns(Scope("google_ads", "b"))
    assert not found["brand"].concerns(Scope("google_ads", "c"))
    assert not found["brand"].concerns(OVERALL)
    assert found["cpl_spike"].concerns(OVERALL)


def test_a_rule_that_is_switched_off_concerns_nobody() -> None:
    assert not rules("[cpl_spike]\nenabled = false")["cpl_spike"].concerns(OVERALL)


def test_channels_narrow_channels_and_their_campaigns_only() -> None:
    rule = rules('[cpl_spike]\nchannels = ["meta_ads"]')["cpl_spike"]
    assert rule.concerns(Scope("meta_ads", "x"))
    assert not rule.concerns(Scope("google_ads", "x"))
    assert rule.concerns(OVERALL)


def test_a_ratio_takes_the_one_to_resolve_along() -> None:
    assert rules("[cpl_spike]\nratio = 2")["cpl_spike"].resolve_ratio == 2
    assert rules("[spend_stopped]\nratio = 0.6")["spend_stopped"].resolve_ratio == 0.6


def test_a_target_may_be_one_to_be_passed() -> None:
    rule = rules("[pacing_behind]\nratio = 1.1\nresolve_ratio = 1.2")["pacing_behind"]
    assert (rule.ratio, rule.resolve_ratio) == (1.1, 1.2)
    assert rules("[pacing_behind]\nratio = 1000")["pacing_behind"].resolve_ratio == 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[cpl_spik]", "kind to be one of .* got 'cpl_spik'; did you mean cpl_spike"),
        ('[x]\nkind = "cpl"', "rules.toml: x: expected kind"),
        ("[cpl_spike]\npvalue = 0.1", "got 'pvalue'; did you mean p_value"),
        (
            "[cpl_spike]\np_value = 2",
            "cpl_spike.p_value: expected a number from 1e-12 to 0.5, got 2",
        ),
        ('[cpl_spike]\np_value = "0.1"', "expected a number"),
        ("[cpl_spike]\nbaseline_leads = 1.5", "a whole number"),
        ("[cpl_spike]\nevaluations = true", "a whole number"),
        ("[cpl_spike]\nenabled = 1", "true or false"),
        ('[cpl_spike]\nwindows = ["last_2h"]', "one of last_1h, last_6h, last_24h, got 'last_2h'"),
        ("[cpl_spike]\nwindows = []", "at least one of"),
        ('[cpl_spike]\nwindows = "last_1h"', "a list of texts"),
        ('[pacing_behind]\nwindows = ["last_1h"]', "one of 1d, 1w, 1mo"),
        ('[cpl_spike]\nlevels = ["campaigns"]', "did you mean campaign"),
        ("[cpl_spike]\nratio = 0.5", "a number from 1 on"),
        ("[cpl_spike]\nresolve_ratio = 3", "at most ratio"),
        ("[spend_stopped]\nresolve_ratio = 0.01", "at least ratio"),
        ("[cpl_spike]\nresolve_p_value = 0.001", "above p_value"),
        ("[spend_stopped]\np_value = 0.1", "a key of spend_stopped"),
        ('[conversion_drop]\nstep = "mql"', "two stages, lead.mql"),
        ('["a|b"]\nkind = "cpl_spike"', "a name of letters"),
        ("cpl_spike = 1", "expected a table, got 1"),
        (
            '[pacing_behind]\nkpis = ["revenu"]',
            "pacing_behind.kpis: expected of cost, leads, .* got 'revenu'; did you mean revenue_net?",
        ),
        ('[pacing_behind]\nkpis = ["leads", "cpl"]', "which have a pace, got 'cpl'"),
        (
            '[pacing_behind]\nkpis = ["stage_entered"]',
            "stage_entered.<stage>.* got 'stage_entered'",
        ),
        ('[pacing_behind]\nkpis = ["leads.mql"]', "got 'leads.mql'"),
        (
            "[conversion_drop]\nratio = 1.5",
            "conversion_drop.ratio: expected a number below 1, got 1.5",
        ),
        ("[spend_stopped]\nratio = 10", "spend_stopped.ratio: .* below 1, got 10"),
        ("[conversion_drop]\nratio = 1", "conversion_drop.ratio: .* below 1, got 1"),
        ("[pacing_behind]\nratio = 0", "pacing_behind.ratio: expected a number above 0, got 0"),
        ("[spend_stopped]\nratio = 0", "spend_stopped.ratio: expected a number above 0"),
        (
            "[spend_stopped]\nresolve_ratio = 2",
            "spend_stopped.resolve_ratio: expected at most 1, got 2",
        ),
        ("[pacing_behind]\nresolve_ratio = 0.5", "at least ratio .0.8., got 0.5"),
        ("[cost_missing]\ncoverage = 0", "cost_missing.coverage: expected a number above 0"),
        ("[pacing_behind]\nelapsed = 1", "pacing_behind.elapsed: expected a number below 1"),
        (
            '[cpl_spike]\nkind = "leads_stopped"',
            "cpl_spike.kind: expected cpl_spike, or another name for the rule, got 'leads_stopped'",
        ),
    ],
)
def test_what_a_rule_may_not_be_is_refused_with_where_and_what(text: str, message: str) -> None:
    with pytest.raises(RuleError, match=message) as refused:
        rules(text)
    assert str(refused.value).startswith("rules.toml: ")


@pytest.mark.parametrize("kpi", [*(TARGET_FACTS - {"stage_entered"}), "stage_entered.mql"])
def test_whatever_a_rule_on_pacing_may_watch_has_a_pace(kpi: str) -> None:
    rule = rules(f'[pacing_behind]\nkpis = ["{kpi}"]\nwindows = ["1d"]\nelapsed = 0')[
        "pacing_behind"
    ]
    assert rule.kpis == (kpi,)
    world = World()
    noon = minute("2026-06-30T12:00:00+02:00")
    midnight = noon - 12 * HOUR_MINUTES
    world.aim(OVERALL, Target(kpi, "day", midnight, midnight + DAY_MINUTES, 1000 * MICROS))
    world.now = noon

    (finding,) = Detector([rule], world.outlook(), world.spans).evaluate(OVERALL, noon)

    assert (finding.condition, finding.evidence.kpi) == ("fires", kpi)


@pytest.mark.parametrize("value", [None, [], {"a": 1}, float("nan"), -1, 10**9])
@pytest.mark.parametrize("key", ["p_value", "ratio", "evaluations", "windows", "kind", "levels"])
def test_whatever_stands_in_a_table_the_only_error_is_a_rule_error(key: str, value: Any) -> None:
    with pytest.raises(RuleError):
        rules_of({"cpl_spike": {key: value}}, "here")
