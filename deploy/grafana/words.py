"""What the facts and KPIs of the dashboards mean, in words of people who buy leads."""

from queries import formula, is_amount

TITLES = {
    "cost": "Spend",
    "leads": "Leads",
    "cpl": "Cost per lead",
    "cpl_gross": "Cost per lead, all",
    "cac": "Cost per customer (CAC)",
    "cac_media": "CAC, media only",
    "roi": "Return on spend (ROI)",
    "roas": "Revenue per spend (ROAS)",
    "revenue_net": "Revenue",
    "sales": "Sales",
    "new_customers": "New customers",
    "conversion": "Lead to customer",
    "conversion_within": "Lead to customer within the horizon",
    "mql_to_close": "MQL to customer",
    "impressions": "Impressions",
    "clicks": "Clicks",
    "ctr": "Click rate",
    "cpc": "Cost per click",
    "cpm": "Cost per 1000 impressions",
    "click_to_lead": "Click to lead",
    "visitor_to_lead": "Visitor to lead",
    "visitors": "Visitors",
    "invalid_click_share": "Invalid clicks",
    "revenue_per_lead": "Revenue per lead",
    "net_profit_per_lead": "Profit per lead",
    "average_revenue_per_sale": "Revenue per sale",
    "purchase_cycle_mean": "Purchase cycle, mean",
    "purchase_cycle_p50": "Purchase cycle, median",
    "purchase_cycle_p90": "Purchase cycle, 90 %",
    "cohort_maturity": "Maturity",
    "cost_coverage": "Cost coverage",
    "unattributed_share": "Unattributed leads",
    "pacing": "Pace towards targets",
    "target_attainment": "Targets reached",
    "fx_missing": "Amounts without a rate",
}

MEANINGS = {
    "cost": "What the advertising cost in the window, fees included, as far as it has been reported; "
    "spend that is not reported yet is unknown and never counts as 0.",
    "leads": "New leads in the window, less those that were declared invalid.",
    "cpl": "What one lead cost.",
    "cpl_gross": "What one lead cost if those that turned out invalid are counted too.",
    "cac": "What one new customer cost.",
    "cac_media": "What one new customer cost in advertising alone, without fees.",
    "roi": "What came back for the money beyond the money itself: 0 % is break-even, 100 % is twice the spend.",
    "roas": "What came in for the money: 100 % is break-even.",
    "revenue_net": "What sales brought, less refunds and cancellations.",
    "sales": "Sales, new and repeated.",
    "new_customers": "Leads that bought for the first time and whose sale stands.",
    "conversion": "Which share of the leads became customers.",
    "conversion_within": "Which share of the leads that are old enough to be judged bought within the horizon; "
    "the fair way to compare cohorts.",
    "mql_to_close": "Which share of the marketing qualified leads became customers.",
    "impressions": "How often adverts were shown, without those to bots.",
    "clicks": "Clicks on adverts, without invalid ones.",
    "ctr": "Which share of the adverts shown was clicked.",
    "cpc": "What one click cost.",
    "cpm": "What a thousand adverts shown cost.",
    "click_to_lead": "Which share of the clicks became leads: how well the landing page works.",
    "visitor_to_lead": "Which share of the visitors became leads.",
    "visitors": "Distinct visitors, within 2 %; counted in windows of a day and longer, never to be added up.",
    "invalid_click_share": "Which share of the clicks came from bots or was taken back.",
    "revenue_per_lead": "What one lead brought.",
    "net_profit_per_lead": "What one lead brought after what it cost.",
    "average_revenue_per_sale": "What one sale brought.",
    "purchase_cycle_mean": "How long it takes on average from the lead to its first sale.",
    "purchase_cycle_p50": "Half of the buyers take at most this long from the lead to the first sale (within 1 %).",
    "purchase_cycle_p90": "Nine of ten buyers take at most this long from the lead to the first sale (within 1 %).",
    "cohort_maturity": "Which share of the leads is old enough (the horizon, 30 days unless set) to judge what came of it.",
    "cost_coverage": "Which share of the channels that should report spend has done so. Below 90 % no cost figure is to be "
    "trusted, and cost alerts are silent.",
    "unattributed_share": "Which share of the leads cannot be traced to a channel; their cost per lead is hidden in the others.",
    "pacing": "Where each target stands against where it should stand by now: 100 % is on time.",
    "target_attainment": "How much of each target of today or the month has been reached; for costs, less is better.",
    "fx_missing": "Amounts in a foreign currency that are not in the sums because their rate has not come.",
}


def title(name: str) -> str:
    """Return the heading of a fact or KPI; money tells its currency."""
    return f"{TITLES[name]} ($currency)" if is_amount(name) else TITLES[name]


def about(name: str, extra: str = "", basis: str = "") -> str:
    """Return what a fact or KPI means and how it is reckoned."""
    reckoned = formula(name, basis)
    formula_text = f"Formula: {reckoned or f'the fact {name}, counted in the window'}."
    parts = [MEANINGS[name], extra, formula_text]
    return " ".join(part for part in parts if part)
