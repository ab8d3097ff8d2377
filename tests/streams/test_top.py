import os

import msgspec
import pytest
from redis.asyncio import Redis
from rich.console import Console

from kpis.facts import OVERALL, Scope
from streams.problems import Problem
from streams.publishers.redis_hashes import SCOPES_KEY, hash_name, member_of
from streams.settings import load
from streams.top import NONE, View, console, read_views, redis_client, render, show_once, view_of
from tests.parts.redis_server import RedisServer
from tests.parts.server import free_port

GOOGLE = Scope("google_ads", None)
BRAND = Scope("google_ads", "brand/été")


def a_view(scope: Scope = OVERALL, undefined: dict[str, str] | None = None, **fields: str) -> View:
    reasons = msgspec.json.encode(undefined or {}).decode()
    return view_of(scope, {**fields, "_undefined": reasons, "_currency": "EUR"})


def text_of(views: list[View], width: int = 140, most_campaigns: int = 15) -> str:
    page = Console(width=width, no_color=True)
    with page.capture() as caught:
        page.print(render(views, "last_1h", most_campaigns, width))
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

    async with redis_client(settings) as client:
        views = await read_views(client, "last_1h")
    await show_once(settings, "last_1h", 5, Console(width=120))

    assert {view.scope for view in views} == {OVERALL, BRAND}
    assert views[0].undefined == {"cac": "no_customers"}
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
