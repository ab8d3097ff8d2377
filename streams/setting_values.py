"""What the value of a setting may be: read from TOML as it is, from the environment as text."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kpis import instants
from kpis.money import CURRENCIES

TRUTHS = {"true": True, "yes": True, "on": True, "1": True}
TRUTHS |= {"false": False, "no": False, "off": False, "0": False}
WEB_SCHEMES = ("http", "https")
REDIS_SCHEMES = ("redis", "rediss", "unix")
REDIS_OPTIONS = {"db", "client_name"}
TLS_OPTIONS = {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"}
TLS_OPTIONS |= {"ssl_cert_reqs", "ssl_check_hostname"}


@dataclass(frozen=True, slots=True)
class Reader:
    """How one key is read.

    `read` takes the value as TOML gives it and raises ValueError unless it is `expected`;
    `from_text` turns an environment variable into what TOML would have given.
    A secret's value appears in no message and no repr.
    """

    expected: str
    read: Callable[[object], Any]
    from_text: Callable[[str], object] = str
    is_secret: bool = False


def key(default: Any, reader: Reader) -> Any:
    """Return a dataclass field with its reader; a mapping is copied for each settings object."""
    metadata = {"reader": reader}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata, repr=not reader.is_secret)


def text(pattern: str, expected: str) -> Reader:
    """Return a reader of text that matches the whole of `pattern`."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return Reader(expected, read)


def secret(expected: str, at_least: int = 0) -> Reader:
    """Return a reader of text that is never shown, empty or of at least so many characters."""

    def read(value: object) -> str:
        given = _text(value)
        if 0 < len(given) < at_least:
            raise ValueError
        return given

    return Reader(expected, read, is_secret=True)


def choice(*options: str, upper: bool = False) -> Reader:
    """Return a reader of one of `options`; `upper` forgives small letters."""

    def read(value: object) -> str:
        chosen = _text(value).upper() if upper else _text(value)
        if chosen not in options:
            raise ValueError
        return chosen

    return Reader(" or ".join(option or '""' for option in options), read)


def whole(low: int, high: int, unit: str = "") -> Reader:
    """Return a reader of a whole number from `low` to `high`, both allowed."""

    def read(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError
        return value

    def from_text(given: str) -> object:
        return int(given) if re.fullmatch(r"-?[0-9]{1,15}", given.strip()) else given

    return Reader(f"a whole number{unit and ' of '}{unit} from {low} to {high}", read, from_text)


def truth() -> Reader:
    """Return a reader of true or false."""

    def read(value: object) -> bool:
        if value is True or value is False:
            return value
        raise ValueError

    return Reader("true or false", read, lambda given: TRUTHS.get(given.strip().lower(), given))


def names(pattern: str, expected: str) -> Reader:
    """Return a reader of a list of distinct names, in the environment separated by commas."""

    def read(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or len(set(map(str, value))) != len(value):
            raise ValueError
        for name in value:
            if not isinstance(name, str) or not re.fullmatch(pattern, name):
                raise ValueError
        return tuple(value)

    def from_text(given: str) -> object:
        return [name.strip() for name in given.split(",")] if given.strip() else []

    return Reader(expected, read, from_text)


def pairs(expected: str) -> Reader:
    """Return a reader of a table of texts, in the environment written a=b,c=d."""

    def read(value: object) -> dict[str, str]:
        if not isinstance(value, dict) or not all(map(_is_full_text, (*value, *value.values()))):
            raise ValueError
        return dict(value)

    def from_text(given: str) -> object:
        parts = [part.partition("=") for part in given.split(",") if part.strip()]
        if any(not equals for _, equals, _ in parts):
            return given
        return {name.strip(): meaning.strip() for name, _, meaning in parts}

    return Reader(expected, read, from_text)


def zone() -> Reader:
    """Return a reader of an IANA time zone."""
    return Reader(instants.TIME_ZONE, lambda value: instants.time_zone(_text(value)))


def currency() -> Reader:
    """Return a reader of a currency's code."""

    def read(value: object) -> str:
        if value not in CURRENCIES:
            raise ValueError
        return _text(value)

    return Reader("a currency code of ISO 4217", read)


def servers() -> Reader:
    """Return a reader of host:port, several separated by commas."""

    def read(value: object) -> str:
        parts = [part.strip() for part in _text(value).split(",")]
        for part in parts:
            host, port = host_and_port(part)
            if not host or port == 0:
                raise ValueError
        return ",".join(parts)

    return Reader("host:port, several separated by commas", read)


def redis_url() -> Reader:
    """Return a reader of the address of a Redis, or empty for none; it may hold a password."""

    def read(value: object) -> str:
        url = _text(value).strip()
        parts = urlsplit(url)
        # `port` is read for its own ValueError.
        is_address = parts.scheme in REDIS_SCHEMES and (parts.hostname or parts.path)
        if url and (not is_address or parts.port == 0):
            raise ValueError
        options = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        if not options <= (REDIS_OPTIONS | (TLS_OPTIONS if parts.scheme == "rediss" else set())):
            raise ValueError
        return url

    expected = "redis://host:port/0, rediss://user:password@host:port/0, unix://path or nothing"
    return Reader(expected, read, is_secret=True)


def web_url() -> Reader:
    """Return a reader of the address of a web server, or empty for none; it may hold credentials."""

    def read(value: object) -> str:
        url = _text(value).strip()
        parts = urlsplit(url)
        # `port` is read for its own ValueError.
        is_address = parts.scheme in WEB_SCHEMES and parts.hostname and parts.port != 0
        if url and (not is_address or parts.fragment or re.search(r"\s", url)):
            raise ValueError
        return url

    return Reader("http://host:port/path, https://host/path or nothing", read, is_secret=True)


def origin(url: str) -> str:
    """Return scheme, host and port of `url`, to be shown; empty for none."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if url else ""


def without_password(url: str) -> str:
    """Return `url` without user, password and query, to be shown."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{parts.path}"


def host_and_port(address: str) -> tuple[str, int]:
    """Return the two parts of `host:port`; an IPv6 host stands in brackets.

    Raises:
        ValueError: if it is not of that form.
    """
    matched = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", address.strip())
    if not matched or int(matched[2]) > 65535:
        raise ValueError
    return matched[1].strip("[]"), int(matched[2])


def shown(value: object, reader: Reader) -> str:
    """Return `value` as an error may show it: cut, and nothing of a secret."""
    # user:password@host: some clients take that where we do not.
    if reader.is_secret or "@" in str(value):
        return "a value that is not shown"
    if isinstance(value, Mapping):
        value = dict(value)
    written = repr(value)
    return written if len(written) <= 40 else f"{written[:39]}…"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - the one signal of every reader
    return value


def _is_full_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
