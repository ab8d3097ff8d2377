"""Pictures of the live page over two days of simulated traffic: python -m tests.page.screenshots."""

import asyncio
import logging
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from playwright.async_api import Browser

from kpis.instants import HOUR_MS
from streams.traffic import Mix, traffic
from tests.integration.running import Deployment, Sent, until
from tests.page.browser import DESKTOP, PHONE, chromium, visit
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.redis_server import RedisServer

FOLDER: Final = Path(__file__).parents[2] / "docs" / "images"
ZONE: Final = "Europe/Paris"
HOURS: Final = 54
PARTITIONS: Final = 2
MOST_BYTES: Final = 300_000
COUNTED_SECONDS: Final = 600.0
FIRST_TILE: Final = """() => new Promise(resolve => {
  const tile = () => document.querySelector('[data-tile="cost"] .place')?.dataset.raw
    ? resolve(performance.now()) : requestAnimationFrame(tile);
  tile();
})"""
WEIGHT: Final = """() => performance.getEntriesByType('resource')
  .concat(performance.getEntriesByType('navigation'))
  .filter(entry => !entry.name.endsWith('/live'))
  .map(entry => [entry.name.split('/').pop(), entry.transferSize, entry.decodedBodySize])"""


PILLOW: Final = "pillow==11.3.0"
REDUCE: Final = """import sys; from PIL import Image
image = Image.open(sys.argv[1]).convert("RGB").quantize(256, dither=Image.Dither.NONE)
image.save(sys.argv[1], optimize=True)"""


class Picture(NamedTuple):
    """What to take a picture of."""

    name: str
    size: tuple[int, int] = DESKTOP
    locale: str = "en-GB"
    is_dark: bool = False
    choice: str = "window=1d&basis=period"


PICTURES: Final = (
    Picture("page-desktop"),
    Picture("page-phone", size=PHONE),
    Picture("page-dark", is_dark=True, choice="window=last_24h&basis=period"),
    Picture("page-french", locale="fr-FR", choice="window=1d&basis=cohort"),
)


def past(now_ms: int) -> Iterator[Sent]:
    """Return what arrived up to now."""
    mix = Mix(
        per_second=0.25,
        cycle_ms=3 * HOUR_MS,
        cost_every_ms=HOUR_MS // 4,
        broken_share=0.002,
        time_zone=ZoneInfo(ZONE),
    )
    for record in traffic(3, now_ms - HOURS * HOUR_MS, mix):
        if record.at_ms > now_ms:
            return
        yield Sent(record.topic, record.value, record.key or None)


def reduce_colours(path: Path) -> None:
    """Leave a picture the 256 colours that matter most."""
    subprocess.run(["uvx", "--with", PILLOW, "python", "-c", REDUCE, str(path)], check=True)


async def take(browser: Browser, url: str, picture: Picture) -> None:
    """Take a picture of the whole page, and tell its size."""
    options = {"size": picture.size, "locale": picture.locale, "is_dark": picture.is_dark}
    async with visit(browser, f"{url}#{picture.choice}", **options) as watched:  # type: ignore[arg-type] # of one dict
        page = watched.page
        first_ms = await page.evaluate(FIRST_TILE)
        await until(page.locator("#chart canvas").is_visible, "the chart")
        button = page.locator("button.open:visible").first
        if picture.size == DESKTOP and await button.count():
            await button.click()
        weight = await page.evaluate(WEIGHT)
        # Numbers that just changed are lit up for a moment.
        await page.emulate_media(reduced_motion="reduce")
        path = FOLDER / f"{picture.name}.png"
        await page.screenshot(path=path, full_page=True)
    sent, whole = (sum(entry[at] for entry in weight) for at in (1, 2))
    await asyncio.to_thread(reduce_colours, path)
    size = path.stat().st_size
    print(
        f"{path.name}: {size:,} bytes; first number after {first_ms:.0f} ms;"
        f" {len(weight)} requests, {sent:,} bytes sent, {whole:,} unpacked; {watched.faults}"
    )
    if size > MOST_BYTES:
        msg = f"{path}: expected at most {MOST_BYTES} bytes, got {size}"
        raise ValueError(msg)


async def main() -> None:
    """Start the parts, count two days, take the pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with KafkaBroker() as kafka, RedisServer() as redis, tempfile.TemporaryDirectory() as folder:
        settings = {
            "LEADPULSE_KAFKA": kafka.bootstrap,
            "LEADPULSE_REDIS": redis.url,
            "LEADPULSE_TIME_ZONE": ZONE,
            "LEADPULSE_TOPICS_PREFIX": "pictures.",
            "LEADPULSE_APP_ID": "pictures",
        }
        async with Deployment(settings, Path(folder), PARTITIONS) as deployment:
            await deployment.create_topics()
            worker = deployment.worker()
            await deployment.send(past(time.time_ns() // 1_000_000))
            await deployment.settle(COUNTED_SECONDS)
            url = worker.metrics_url.removesuffix("metrics")
            async with chromium() as browser:
                for picture in PICTURES:
                    await take(browser, url, picture)


if __name__ == "__main__":
    # It says of each retry that it is one, and new topics take some.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    asyncio.run(main())
