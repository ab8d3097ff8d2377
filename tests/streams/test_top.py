import os

import msgspec
import pytest
from redis.asyncio import Redis
from rich.console import Console

from kpis.facts import COHORT, OVERALL, PERIOD, Scope
from streams.problems import Problem
from streams.publishers.redis_hashes import SCOPES_KEY, hash_name, member_of
from streams.settings import load
from streams.top import (
    NONE,
    PAPER_COLUMNS,
    View,
    console,
    read_views,
    redis_client,
    render,
    show_once,
    view_of,
)
from tests.parts.redis_server import RedisServer
from tests.parts.server import free_port

GOOGLE = Scope("google_ads", None)
BRAND = Scope("google_ads", "brand/été")


def a_view(scope: Scope = OVERALL, undefined: dict[str, str] | None = None, **fields: str) -> View:
    reasons = msgspec.json.encode(undefined or {}).decode()
    return view_of(scope, {**fields, "_undefined": reasons, "_currency": "EUR"})


def text_of(
    views: list[View], width: int = 140, most_campaigns: int = 15, basis: str = PERIOD
) -> str:
    page = Console(width=width, no_color=True)
    with page.capture() as caught:
        page.print(render(views, "last_1h", most_campaigns, width, basis))
    return caught.get()


def row_of(name: str, text: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.strip().startswith(name))


def test_row_shows_facts_and_kpis() -> None:
    fields = {"impressions": "10000", "clicks": "300", "ctr": "0.03", "cost": "600.000000"}
    fields |= {"leads": "28", "cpl": "21.428571", "sales": "3"}
    fields |= {"revenue_net": "3900.000000", "roi": "5.5"}
    row = row_of("all", text_of([view_of(OVERALL, fields)]))
    assert row == [
        *("all", "all", "10,000", "300", "3.00%", "600.00"),
        *("28", "21.43", "3", "3,900.00", "550%"),
    ]


def test_cohort_shows_what_became_of_its_leads() -> None:
    fields = {"leads": "28", "converted": "2", "conversion": "0.071429", "cost": "600.000000"}
    fields |= {"cpl": "21.428571", "cac": "300.0", "sales": "2", "revenue_net": "1000.000000"}
    text = text_of([view_of(OVERALL, {**fields, "roi": "0.666667"})], basis=COHORT)
    assert "last_1h, cohort basis" in text
    assert "impressions" not in text
    assert row_of("all", text) == [
        *("all", "all", "28", "2", "7.14%", "600.00"),
        *("21.43", "300.00", "2", "1,000.00", "67%"),
    ]


def test_title_names_the_period_basis_unless_told_otherwise() -> None:
    assert "last_1h, period basis" in text_of([a_view()])


def test_undefined_cost_of_a_customer_is_no_number() -> None:
    text = text_of([a_view(undefined={"cac": "no_customers"}, cost="5.0")], basis=COHORT)
    assert row_of("all", text)[-4:] == [NONE, "0", "0.00", NONE]


def test_names_fit_the_cohort_table_on_paper() -> None:
    scope = Scope("microsoft_ads", "competitor-search")
    view = a_view(scope, {"cpl": "cost_missing"}, leads="1", cac="59697.88", revenue_net="59697.88")
    text = text_of([view], width=PAPER_COLUMNS, basis=COHORT)
    assert "microsoft_ads  competitor-search " in text


def test_partial_numbers_are_marked_and_the_mark_is_explained() -> None:
    partial = '["cpl","roi"]'
    fields = {"cost": "5.0", "leads": "2", "cpl": "2.5", "roi": "-0.5", "_partial": partial}
    text = text_of([view_of(GOOGLE, fields)])
    assert row_of("google_ads", text)[7:11] == ["~2.50", "0", "0.00", "~-50%"]
    assert "~ partial: some cost or exchange rate is still unknown" in text


def test_nothing_is_said_of_partial_numbers_that_are_not_shown() -> None:
    text = text_of([view_of(GOOGLE, {"cost": "5.0", "_partial": '["roas"]'})])
    assert "partial" not in text


@pytest.mark.parametrize("basis", [PERIOD, COHORT])
def test_narrow_table_of_a_basis_fits_its_terminal(basis: str) -> None:
    scope = Scope("microsoft_ads", "competitor-search")
    fields = {"cost": "59697.88", "leads": "12345", "cpl": "4.84", "cac": "48.40", "roi": "-0.5"}
    for width in (80, 100):
        text = text_of([view_of(scope, fields)], width=width, basis=basis)
        assert "59,697.88" in text
        assert "-50%" in text


def test_undefined_cost_per_lead_shows_its_reason() -> None:
    assert f"{NONE} no leads" in text_of([a_view(undefined={"cpl": "no_leads"}, cost="5.0")])


def test_unknown_cost_is_not_shown_as_zero() -> None:
    text = text_of([a_view(GOOGLE, {"cpl": "cost_missing"}, leads="2")])
    assert row_of("google_ads", text)[5:9] == [NONE, "2", NONE, "cost"]


def test_known_zero_cost_is_shown() -> None:
    text = text_of([a_view(Scope("seo", None), leads="2", cpl="0.0")])
    assert row_of("seo", text)[5:8] == ["0.00", "2", "0.00"]


def test_whole_then_channels_then_campaigns_each_by_falling_cost() -> None:
    views = [
        a_view(Scope("b", "x"), cost="1.0"),
        a_view(Scope("b", "y"), cost="2.0"),
        a_view(Scope("b", None), cost="3.0"),
        a_view(Scope("a", None), cost="30.0"),
        a_view(OVERALL, cost="33.0"),
    ]
    lines = [line.split()[:2] for line in text_of(views).splitlines() if line.strip()]
    rows = [line for line in lines if line[0] in {"all", "a", "b"}]
    assert rows == [["all", "all"], ["a", "all"], ["b", "all"], ["b", "y"], ["b", "x"]]


def test_campaigns_beyond_the_limit_are_counted() -> None:
    views = [a_view()] + [a_view(Scope("a", f"c{n}")) for n in range(5)]
    assert "3 more campaigns" in text_of(views, most_campaigns=2)
    assert "1 more campaign " in text_of(views, most_campaigns=4)


def test_names_are_shown_as_they_are_though_they_look_like_markup() -> None:
    assert "[red]" in text_of([a_view(Scope("a", "[red]"))])


def test_narrow_table_leaves_columns_out_and_cuts_no_number() -> None:
    text = text_of([a_view(GOOGLE, cost="59697.88", clicks="38886", roi="-0.5")], width=80)
    assert "impressions" not in text
    assert "59,697.88" in text
    assert "-50%" in text


def test_names_fit_a_terminal_of_eighty_columns() -> None:
    scope = Scope("microsoft_ads", "competitor-search")
    text = text_of([a_view(scope, cost="59697.88", leads="1")], width=80)
    assert "microsoft_ads  competitor-search " in text


def test_table_without_numbers_says_what_to_look_at() -> None:
    assert "is a worker running?" in text_of([])


def test_page_is_wide_enough_where_nobody_says_how_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    assert console(plain=True).width >= 116


@pytest.mark.integration
async def test_views_are_read_from_the_hashes_of_the_index(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = redis_server.url.removesuffix("/0") + "/9"
    settings = load({"LEADPULSE_REDIS": url})
    async with Redis.from_url(url) as redis:
        await redis.flushdb()
        for scope in (OVERALL, GOOGLE, BRAND):
            await redis.zadd(SCOPES_KEY, {member_of(scope): 1})
        for scope in (OVERALL, BRAND):
            fields = ["leads", "2", "cpl", "1.5", "_undefined", '{"cac":"no_customers"}']
            await redis.hset(hash_name("last_1h", scope), items=fields)
        fields = ["leads", "7", "_undefined", "{}", "_partial", '["cpl"]']
        await redis.hset(hash_name("1mo", GOOGLE, COHORT), items=fields)

    async with redis_client(settings) as client:
        views = await read_views(client, "last_1h")
        cohort = await read_views(client, "1mo", COHORT)
    await show_once(settings, "last_1h", 5, Console(width=120))

    assert {view.scope for view in views} == {OVERALL, BRAND}
    assert views[0].undefined == {"cac": "no_customers"}
    assert [(view.scope, view.partial) for view in cohort] == [(GOOGLE, frozenset({"cpl"}))]
    assert "brand/été" in capsys.readouterr().out


async def test_redis_that_is_not_there_is_one_problem() -> None:
    url = f"redis://ada:hunter2@localhost:{free_port()}/0"
    with pytest.raises(
        Problem, match="got connection refused; start it or set LEADPULSE_REDIS"
    ) as caught:
        await show_once(load({"LEADPULSE_REDIS": url}), "last_1h", 5, Console())
    assert "hunter2" not in str(caught.value)


async def test_redis_that_is_switched_off_is_one_problem() -> None:
    with pytest.raises(Problem, match="expected the address of a Redis, got nothing"):
        await show_once(load({"LEADPULSE_REDIS": ""}), "last_1h", 5, Console())


@pytest.mark.integration
async def test_redis_that_wants_a_password_is_one_problem() -> None:
    with RedisServer(password="sesame") as server:
        settings = load({"LEADPULSE_REDIS": f"redis://{server.host}:{server.port}/0"})
        with pytest.raises(Problem, match="a refusal of the user or password"):
            await show_once(settings, "last_1h", 5, Console())
