"""A real Chromium, and pages of it that remember what they complained of and what they asked for."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from tests.parts.install import MissingPartError

ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
)
DESKTOP: Final = (1360, 900)
PHONE: Final = (390, 844)


@dataclass
class Watched:
    """A page with everything it said of faults, and every host it asked."""

    page: Page
    faults: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def listen(self) -> None:
        """Begin to remember."""
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start Debian's Chromium and end it.

    Raises:
        MissingPartError: if it is not on PATH (`make parts`).
    """
    program = shutil.which("chromium")
    if program is None:
        msg = "chromium is not on PATH: run `make parts`"
        raise MissingPartError(msg)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def visit(
    browser: Browser,
    url: str,
    *,
    size: tuple[int, int] = DESKTOP,
    locale: str = "en-GB",
    is_dark: bool = False,
) -> AsyncIterator[Watched]:
    """Open `url` as somebody who was never there before."""
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        locale=locale,
        color_scheme="dark" if is_dark else "light",
    )
    try:
        watched = Watched(await context.new_page())
        watched.listen()
        await watched.page.goto(url)
        yield watched
    finally:
        await context.close()
