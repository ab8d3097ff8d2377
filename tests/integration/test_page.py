"""The live page of a real worker in a real Chromium: what it shows is what Redis holds."""

import json
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped] # has no types
from playwright.async_api import Browser, Page

from kpis.alert_records import AlertValue, alert_record, alert_value
from kpis.alerts import State
from kpis.catalog import COST_MISSING, NO_DATA, Catalog
from kpis.facts import Scope
from streams.publishers import AlertView
from streams.publishers.redis_hashes import connect
from streams.settings import load
from tests.contracts.test_redis_hashes import Worker as Writer
from tests.faults.workers import Worker
from tests.integration.running import Deployment, Sent, event, until
from tests.kpis.test_alert_records import PARIS, WHY, an_alert
from tests.page.browser import PHONE, Watched, chromium, visit
from tests.parts.install import MissingPartError
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.redis_server import RedisServer
from tests.streams.publishers.views import version

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

PARTITIONS: Final = 2
FOLLOWS_SECONDS: Final = 2.0
PLACES: Final = """() => [...document.querySelectorAll('.place')]
    .filter(node => node.checkVisibility() && node.dataset.key)
    .map(node => ({...node.dataset, text: node.querySelector('.number').textContent,
                   words: node.querySelector('.reason').textContent}))"""
DRAWS_FRENCH: Final = {"\u202f": "", "\u00a0": "", ",": "."}


class Site(NamedTuple):
    """What all tests of this file share."""

    deployment: Deployment
    worker: Worker
    redis: RedisServer
    browser: Browser
    url: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Return a deployment that has not counted anything yet, and a browser."""
    folder = tmp_path_factory.mktemp("page")
    try:
        with RedisServer() as redis:
            settings = {
                "LEADPULSE_KAFKA": kafka.bootstrap,
                "LEADPULSE_REDIS": redis.url,
                "LEADPULSE_TOPICS_PREFIX": f"page{time.time_ns():x}.",
                "LEADPULSE_APP_ID": f"page{time.time_ns():x}",
                "LEADPULSE_TIME_ZONE": "Europe/Paris",
            }
            async with (
                Deployment(settings, folder, PARTITIONS) as deployment,
                chromium() as browser,
            ):
                await deployment.create_topics()
                worker = deployment.worker()
                url = worker.metrics_url.removesuffix("metrics")
                yield Site(deployment, worker, redis, browser, url)
    except MissingPartError as error:
        pytest.skip(str(error))


def at(channel: str, campaign: str) -> dict[str, str]:
    return {"channel": channel, "campaign_id": campaign}


def traffic() -> list[Sent]:
    """Return two days of few events: a channel that pays, one without leads, one above 100 %."""
    now = datetime.now(UTC)
    moments = [now - timedelta(hours=hours) for hours in (0, 1, 3, 26, 47)]
    paid, silent, odd = at("google_ads", "été 1"), at("meta_ads", "video"), at("email", "news")
    sent = []
    for number, moment in enumerate(moments):
        told = moment.isoformat()
        sent += [
            event("impressions", "impression.served", told, impression_id=f"{number}-{one}", **paid)
            for one in range(20)
        ]
        for one in range(4):
            sent.append(
                event("clicks", "click.recorded", told, click_id=f"g-{number}-{one}", **paid)
            )
            sent.append(event("leads", "lead.created", told, lead_id=f"g-{number}-{one}", **paid))
        sent += [
            event(
                "stage-changes", "lead.stage_changed", told, lead_id=f"g-{number}-0", to_stage="mql"
            ),
            event(
                "stage-changes", "lead.stage_changed", told, lead_id=f"g-{number}-1", to_stage="sql"
            ),
            event(
                "sales",
                "sale.created",
                told,
                sale_id=f"g-{number}",
                lead_id=f"g-{number}-1",
                amount="1234.56",
                currency="EUR",
            ),
            event("clicks", "click.recorded", told, click_id=f"m-{number}", **silent),
            spent(moment, paid, "1010.10"),
            spent(moment, silent, "45.05"),
        ]
    old, told = (now - timedelta(days=3)).isoformat(), now.isoformat()
    sent.append(event("leads", "lead.created", told, lead_id="e-now", **odd))
    for one in range(3):
        sent.append(event("leads", "lead.created", old, lead_id=f"e-{one}", **odd))
        sent.append(
            event(
                "sales",
                "sale.created",
                told,
                sale_id=f"e-{one}",
                lead_id=f"e-{one}",
                amount="10",
                currency="EUR",
            )
        )
    return sent


def spent(moment: datetime, scope: dict[str, str], amount: str) -> Sent:
    """Return the bill of the hour before `moment`."""
    return event(
        "costs", "cost.snapshot", moment.isoformat(),
        cost_source="bills", amount=amount, currency="EUR",
        period_start=(moment - timedelta(hours=1)).isoformat(), period_end=moment.isoformat(),
        reported_at=moment.isoformat(), **scope,
    )  # fmt: skip


async def places(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await page.evaluate(PLACES)
    return found


def of_redis(site: Site, place: dict[str, Any]) -> str | None:
    key = str(place["key"]).replace("|", ":")
    found = site.deployment.redis.hget(f"leadkpi:v1:{key}", place["name"])
    return None if found is None else str(found)


def read_back(text: str, *, is_french: bool) -> tuple[float, float]:
    """Return the number in a text as people read it in that language, and half its last digit."""
    plain = text.replace("\u2212", "-")
    for drawn, meant in (DRAWS_FRENCH if is_french else {",": ""}).items():
        plain = plain.replace(drawn, meant)
    digits = re.search(r"-?[\d.]+", plain)
    assert digits, text
    decimals = len(digits[0].partition(".")[2])
    scale = 100 if "%" in text else 1
    sign = -1 if plain.startswith("-") and not digits[0].startswith("-") else 1
    return sign * float(digits[0]) / scale, 0.5 * 10**-decimals / scale


async def notice(page: Page) -> str | None:
    # In one go: between two questions it may be gone.
    kind: str | None = await page.evaluate(
        "document.querySelector('#notice .notice:not([hidden])')?.dataset.kind ?? null"
    )
    return kind


async def has_notice(page: Page, kind: str | None) -> None:
    async def has() -> bool:
        return await notice(page) == kind

    await until(has, f"the notice {kind}")


async def shows(page: Page, selector: str, raw: str | None) -> float:
    """Return after how many seconds the first place of `selector` shows the raw value."""

    async def has() -> bool:
        node = page.locator(selector).first
        return bool(await node.count()) and await node.get_attribute("data-raw") == raw

    return await until(has, f"{raw} at {selector}")


def tile(name: str) -> str:
    return f'[data-tile="{name}"] .place'


def assert_clean(watched: Watched, site: Site) -> None:
    assert watched.faults == []
    assert watched.hosts == {site.url.split("/")[2]}


# ------------------------------------------------------------------------- in the order of a life


@pytest.mark.timeout(180)
async def test_page_without_numbers_says_what_it_waits_for_and_shows_no_zero(site: Site) -> None:
    async with visit(site.browser, await started(site)) as watched:
        await has_notice(watched.page, "empty")
        assert "leadpulse simulate" in await watched.page.locator("#notice").inner_text()
        assert await watched.page.locator("#freshness").inner_text() == "Nothing counted yet"
        found = await places(watched.page)
        assert len(found) >= 12
        assert all(place["text"] == "—" and place["words"] for place in found)
        assert_clean(watched, site)


async def started(site: Site) -> str:
    """Return the address of the page once the worker serves it."""
    session = await site.browser.new_context()

    async def answers() -> bool:
        try:
            answer = await session.request.get(site.url)
        except Exception:  # noqa: BLE001 - a port where nobody listens yet
            return False
        return bool(answer.ok)

    await until(answers, site.url, 60)
    await session.close()
    return site.url


@pytest.mark.timeout(180)
@pytest.mark.parametrize("locale", ["en-GB", "fr-FR"])
@pytest.mark.parametrize(
    "choice",
    ["window=1d&basis=period", "window=lifetime&basis=period", "window=last_24h&basis=cohort"],
)
async def test_every_number_on_the_page_is_the_one_in_redis(
    site: Site, choice: str, locale: str
) -> None:
    await counted(site)
    async with visit(site.browser, f"{site.url}#{choice}", locale=locale) as watched:
        await shows(
            watched.page, "#tiles .place", of_redis(site, {"key": key_of(choice), "name": "cost"})
        )
        for button in await watched.page.locator("button.open:visible").all():
            await button.click()

        async def agree() -> bool:
            return all(
                place.get("raw") == of_redis(site, place) for place in await places(watched.page)
            )

        await until(agree, "every raw value on the page is that of Redis")
        found = await places(watched.page)
        known = [place for place in found if place.get("raw") is not None]
        assert len(known) > 20
        for place in known:
            value, half = read_back(place["text"], is_french=locale == "fr-FR")
            assert value == pytest.approx(float(place["raw"]), abs=half * 1.000001), place
        assert_clean(watched, site)


def key_of(choice: str) -> str:
    chosen = dict(part.split("=") for part in choice.split("&"))
    return f"{chosen['basis']}|{chosen['window']}|_all|_all"


async def counted(site: Site) -> None:
    """Return when the traffic is in Redis; it is sent once."""
    if not site.deployment.hash("lifetime"):
        await site.deployment.send(traffic())
        await site.deployment.settle(60)
        await site.deployment.shown({"leads": "24"})


async def test_undefined_figures_say_why_and_are_never_zero(site: Site) -> None:
    await counted(site)
    async with visit(site.browser, f"{site.url}#window=lifetime") as watched:
        row = watched.page.locator('tr[data-scope="meta_ads|_all"]')
        cpl = row.locator('[data-name="cpl"]')
        await until(cpl.is_visible, "the row of a channel without leads")
        assert await cpl.get_attribute("data-raw") is None
        assert await cpl.get_attribute("data-reason") == "no_leads"
        assert " ".join((await cpl.inner_text()).split()) == "— no leads yet"
        undefined = json.loads(site.deployment.hash("lifetime", "meta_ads")["_undefined"])
        assert {"cpl": "no_leads", "cac": "no_customers"}.items() <= undefined.items()
        clicks = watched.page.locator(tile("clicks"))
        await watched.page.get_by_role("button", name="By lead").click()
        await until(lambda: has_text(clicks, "counted by date only"), "that clicks have no cohort")
        assert "0" not in await clicks.inner_text()
        assert "basis=cohort" in watched.page.url


async def has_text(node: Any, text: str) -> bool:
    return text in await node.inner_text()


async def test_share_above_one_is_shown_as_it_is_and_marked(site: Site) -> None:
    await counted(site)
    async with visit(site.browser, site.url) as watched:
        share = watched.page.locator('tr[data-scope="email|_all"] [data-name="conversion"]')
        await until(share.is_visible, "the row of the channel")
        assert (await share.inner_text()).startswith("300%")
        assert "!" in await share.inner_text()
        assert "over 100 %" in str(await share.get_attribute("title"))


async def test_page_follows_redis_within_two_seconds_and_keeps_the_focus(site: Site) -> None:
    await counted(site)
    async with visit(site.browser, f"{site.url}#window=last_28d") as watched:
        page = watched.page
        before = site.deployment.hash("last_28d")["impressions"]
        await shows(page, tile("impressions"), before)
        await page.locator("button.open").first.focus()
        await page.keyboard.press("Enter")
        await until(page.locator("tr.campaign").first.is_visible, "the campaigns of the channel")
        after = str(int(before) + 1)
        now = datetime.now(UTC).isoformat()
        await site.deployment.send(
            [
                event(
                    "impressions",
                    "impression.served",
                    now,
                    impression_id="one-more",
                    **at("google_ads", "été 1"),
                )
            ]
        )

        async def is_in_redis() -> bool:
            return site.deployment.hash("last_28d")["impressions"] == after

        await until(is_in_redis, "one more impression in Redis")
        seconds = await shows(page, tile("impressions"), after)
        print(f"followed Redis after {seconds:.2f} s")
        assert seconds < FOLLOWS_SECONDS
        assert await page.evaluate("document.activeElement.className") == "open"
        await page.get_by_role("button", name="Cost per lead").click()
        sorted_up = page.locator('th[aria-sort="ascending"]')
        await until(sorted_up.is_visible, "the channels with the lowest cost per lead on top")
        assert_clean(watched, site)


@pytest.mark.parametrize(
    ("locale", "is_dark", "size"),
    [
        ("en-GB", False, (1360, 900)),
        ("fr-FR", True, (1360, 900)),
        ("fr-FR", False, PHONE),
        ("en-GB", True, PHONE),
    ],
)
async def test_axe_finds_nothing_that_keeps_people_out(
    site: Site, locale: str, is_dark: bool, size: tuple[int, int]
) -> None:
    await counted(site)
    async with visit(site.browser, site.url, size=size, locale=locale, is_dark=is_dark) as watched:
        page = watched.page
        await until(page.locator("button.open").first.is_visible, "the channels")
        await page.locator("button.open").first.click()
        await until(page.locator("tr.campaign").first.is_visible, "the campaigns of the channel")
        results = await Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        assert await page.evaluate("document.documentElement.scrollWidth") <= size[0]
        await page.locator("#chart_switch").click()
        await until(page.locator("#chart_table").is_visible, "the chart as a table")
        results = await Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        assert await page.evaluate("document.documentElement.lang") == locale[:2]


@pytest.mark.parametrize(("locale", "is_dark"), [("en-GB", False), ("fr-FR", True)])
async def test_alerts_stand_on_top_while_they_fire_and_below_when_they_are_over(
    site: Site, locale: str, is_dark: bool
) -> None:
    await counted(site)
    scope = Scope("google_ads", "été 1")

    async def tell(state: State) -> AlertValue:
        """Let a publisher of its own write an alert to the Redis of the page."""
        value = alert_value(an_alert(state=state, scope=scope), WHY, PARIS, "EUR")
        record = alert_record(value)
        async with Writer(connect(site.redis.url)) as writer:
            at = version(time.time_ns())
            shown = AlertView(0, at, value.rule, scope, record.value)
            writer.snapshot.replace_alert(shown)
        return value

    async with visit(site.browser, site.url, locale=locale, is_dark=is_dark) as watched:
        page = watched.page
        fired = await tell("fired")
        firing = page.locator("#firing li.fires")
        await until(firing.is_visible, "an alert on top")
        message = fired.message_en if locale == "en-GB" else fired.message_fr
        assert message in await firing.inner_text()
        results = await Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        await tell("resolved")
        await until(page.locator("#alerts li.over").is_visible, "the alert further down")
        assert await firing.count() == 0
        assert_clean(watched, site)


async def test_language_and_colours_are_remembered(site: Site) -> None:
    async with visit(site.browser, site.url) as watched:
        page = watched.page
        await page.get_by_role("button", name="Français").click()
        await page.locator("#theme").click()
        await until(lambda: has_text(page.locator("#kpis_title"), "Chiffres clés"), "French titles")
        await page.reload()
        await until(lambda: has_text(page.locator("#kpis_title"), "Chiffres clés"), "French again")
        assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert_clean(watched, site)


async def test_both_languages_have_the_same_texts_with_the_same_gaps(site: Site) -> None:
    async with visit(site.browser, site.url) as watched:
        texts = await watched.page.evaluate("import('/page/texts.js').then(m => m.TEXTS)")
        english, french = texts["en"], texts["fr"]
        assert english.keys() == french.keys()
        for key, text in english.items():
            assert gaps(text) == gaps(french[key]), key
        reasons = {kpi.reason for kpi in Catalog(load({}).funnel.stages, 30).kpis}
        assert {
            f"reason.{reason}" for reason in {*reasons, COST_MISSING.reason, NO_DATA.reason}
        } <= english.keys()


def gaps(text: str | dict[str, str]) -> set[str]:
    return set(re.findall(r"\{\w+\}", json.dumps(text)))


async def test_change_against_yesterday_takes_the_running_hour_pro_rata(site: Site) -> None:
    async with visit(site.browser, site.url) as watched:
        # Yesterday from 0 to 2 o'clock: 10 and 20 leads for 100 and 400; today at half past one.
        found = await watched.page.evaluate("""import('/page/numbers.js').then(({ comparison, merge }) => {
            const hour = 3600e3, midnight = Date.parse('2026-03-04T00:00:00Z'), day = 24 * hour;
            const board = {
              kpis: { cpl: { unit: 'amount' } },
              time_zone: 'UTC', status: { complete_until: '2026-03-04T01:30:00Z', now: '2026-03-04T01:30:00Z' },
              numbers: {
                'period|1d|_all|_all': { _start: '2026-03-04T00:00:00+00:00', _end: '2026-03-05T00:00:00+00:00',
                                         leads: '30', cost: '450', cpl: '15', _undefined: '{}' },
                'period|1d@previous|_all|_all': { _start: '2026-03-03T00:00:00+00:00' } },
              series: { _all: [[midnight - day, 0, 0, 100, 10, 0, 0, 0], [midnight - day + hour, 0, 0, 400, 20, 0, 0, 0],
                               [midnight - day + 2 * hour, 0, 0, null, 5, 0, 0, 0]] } };
            const told = (name) => comparison(board, 'period', '1d', name);
            const all = [told('leads'), told('cost'), told('cpl'), told('cac')];
            board.status.complete_until = '2026-03-04T02:30:00Z';
            all.push(told('cost'), comparison(board, 'cohort', '1d', 'leads'));
            merge(board, { numbers: { 'period|1d|_all|_all': null } });
            return [...all, told('leads')];
          })""")
    leads, cost, cpl, *nothing = found
    assert (leads["before"], leads["change"], leads["verdict"]) == (20, 0.5, "good")
    assert (cost["before"], cost["change"], cost["verdict"]) == (300, 0.5, "neutral")
    assert (cpl["before"], cpl["direction"], cpl["verdict"]) == (15, 0, "neutral")
    # No customers, an hour whose spend is missing, the other basis, no numbers any more.
    assert nothing == [None, None, None, None]


@pytest.mark.timeout(180)
async def test_page_says_that_redis_is_gone_and_goes_on_when_it_is_back(site: Site) -> None:
    await counted(site)
    async with visit(site.browser, f"{site.url}#window=lifetime") as watched:
        await shows(watched.page, tile("leads"), "24")
        site.redis.kill()
        try:
            await has_notice(watched.page, "redis")
            # What was read last stays.
            assert await watched.page.locator(tile("leads")).get_attribute("data-raw") == "24"
        finally:
            site.redis.start()
        await has_notice(watched.page, None)
        await shows(watched.page, tile("leads"), "24")
        assert_clean(watched, site)


@pytest.mark.timeout(180)
async def test_page_says_that_the_connection_is_lost_and_finds_the_worker_again(site: Site) -> None:
    await counted(site)
    async with visit(site.browser, f"{site.url}#window=lifetime") as watched:
        page = watched.page
        await shows(page, tile("leads"), "24")
        site.worker.kill()
        await has_notice(page, "lost")
        assert await page.locator("#freshness").get_attribute("data-state") == "lost"
        assert await page.locator(tile("leads")).get_attribute("data-raw") == "24"
        site.worker.start()
        await has_notice(page, None)
        now = datetime.now(UTC).isoformat()
        await site.deployment.send(
            [event("leads", "lead.created", now, lead_id="later", **at("email", "news"))]
        )
        await shows(page, tile("leads"), "25")


async def test_page_without_javascript_says_so(site: Site) -> None:
    context = await site.browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(site.url)
    assert "needs JavaScript" in await page.locator("main").inner_text()
    await context.close()
