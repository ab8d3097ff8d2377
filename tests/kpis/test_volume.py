"""The quick path counts what the reader would have counted, and leaves it the rest."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kpis.events import ClickRecorded, ImpressionServed
from kpis.instants import InstantError, instant_ms
from kpis.reading import Ignored, Refused, Rules, read
from kpis.volume import VolumeCounter, volume_facts
from tests.kpis.streams_of_records import ms

NOW_MS = ms("2026-03-29T12:00:30Z")
RULES = Rules()
DEDUP = Rules(dedup_impressions=True)
Counts = Counter[tuple[int, str, str, str]]


def count_read(
    topic: str, value: bytes | None, timestamp_ms: int, into: Counts, rules: Rules = RULES
) -> bool:
    """Count one record as the reader sees it, and tell whether the quick path may learn from it."""
    try:
        reading = read(topic, value, timestamp_ms, rules)
    except Refused as refused:
        into[0, "", "", refused.reason] += 1
        return False
    except Ignored:
        return False
    event = reading.event
    is_volume = (isinstance(event, ImpressionServed) and event.impression_id is None) or (
        isinstance(event, ClickRecorded) and event.click_id is None
    )
    if reading.is_test or not isinstance(event, ImpressionServed | ClickRecorded) or not is_volume:
        into[0, "", "", type(event).__name__] += 1
        return False
    viewable = isinstance(event, ImpressionServed) and event.viewable
    minute = event.envelope.occurred_ms // 60_000
    for fact in volume_facts(topic, is_bot=event.is_bot, viewable=viewable):
        into[minute, event.channel, event.campaign_id, fact] += 1
    return reading.unknown_fields == 0


def counted(
    topic: str, batches: Sequence[tuple[list[bytes | None], int]], rules: Rules = RULES
) -> Counts:
    """Count batches (values, smallest timestamp) as intake does: the quick path, then the reader."""
    counter, counts = VolumeCounter(topic, rules), Counts()
    for values, timestamp_ms in batches:
        for index in counter.count(values, timestamp_ms):
            value = values[index]
            if count_read(topic, value, timestamp_ms, counts, rules) and value is not None:
                counter.learn(value)
        for minute, channel, campaign_id, facts, amount in counter.take():
            for fact in facts:
                counts[minute, channel, campaign_id, fact] += amount
    return +counts


def read_all(
    topic: str, batches: Sequence[tuple[list[bytes | None], int]], rules: Rules = RULES
) -> Counts:
    counts = Counts()
    for values, timestamp_ms in batches:
        for value in values:
            count_read(topic, value, timestamp_ms, counts, rules)
    return counts


# ----------------------------------------------------------------------------- nasty records

TIMES = st.sampled_from(
    (
        "2026-03-29T12:00:00Z",
        "2026-03-29T11:59:59.999Z",
        "2026-03-29T11:59:59.9999994Z",
        "2026-03-29T11:59:59.9999995Z",
        "2026-03-29T11:59:59.9999999Z",
        "2026-03-29T11:58:59.999999999999999Z",
        "2026-03-29T11:59:60Z",
        "2026-03-29T11:59:60.5Z",
        "2026-03-29t11:59:00z",
        "2026-03-29 11:59:00Z",
        "2026-03-29T13:59:00+0200",
        "2026-03-29T13:59:00+02:00",
        "2026-03-29T13:59:00+02",
        "2026-03-29T12:00:31Z",
        "2026-03-29T12:01:00Z",
        "2026-03-30T11:00:00Z",
        "2026-03-30T13:00:00Z",
        "2026-03-29T11:59:00",
        "2026-03-29",
        "1999-12-31T23:30:00-01:00",
        "2000-01-01T00:00:00+01:00",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "",
    )
)
TEXTS = st.one_of(
    st.sampled_from(
        ("a", " a", "a ", " ", "", "é", "e\u0301", "\x7f", "a\x7f", "\u2028", "x" * 300)
    ),
    st.sampled_from(("_all", "__other__", "Google_Ads", "a b", "a,b", "a:b", "{", "9999999")),
    st.text(max_size=3),
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "event_id": TEXTS,
    "source": TEXTS,
    "occurred_at": TIMES,
    "schema_version": st.sampled_from(("1.0", "1.1", "2.0", "", None)),
    "type": st.sampled_from(("impression.served", "click.recorded", "lead.created", "", None)),
    "channel": TEXTS,
    "campaign_id": TEXTS,
    "impression_id": TEXTS,
    "visitor_id": TEXTS,
    "click_id": st.one_of(st.none(), TEXTS),
    "is_bot": st.sampled_from((True, False, None, "", "true", 1)),
    "viewable": st.sampled_from((True, False, None, "", 0)),
    "test": st.sampled_from((True, False, None)),
    "recorded_at": TIMES,
    "unknown": TEXTS,
}
SOUND: dict[str, st.SearchStrategy[Any]] = {
    "event_id": st.just("e"),
    "source": st.just("s"),
    "occurred_at": st.sampled_from(
        ("2026-03-29T12:00:00Z", "2026-03-29T11:59:59.5Z", "2026-03-29T11:59:59.9999995Z")
    ),
    "channel": st.sampled_from(("seo", "Seo ")),
    "is_bot": st.booleans(),
    "viewable": st.booleans(),
}


@st.composite
def members(draw: st.DrawFn, topic: str) -> list[tuple[str, Any]]:
    """Draw the members of a record: mostly of one shape, so that the quick path has it."""
    names = [name for name in SOUND if topic == "impressions" or name != "viewable"]
    sound = [(name, draw(SOUND[name])) for name in names]
    if draw(st.integers(0, 3)) == 0:
        sound.append(("impression_id", "i"))
    if draw(st.integers(0, 2)):
        return sound
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(FIELDS)))
        fault = draw(st.sampled_from(("leave out", "change", "twice")))
        if fault == "twice":
            sound.append((name, draw(FIELDS[name])))
            continue
        sound = [member for member in sound if member[0] != name]
        if fault == "change":
            sound.append((name, draw(FIELDS[name])))
    return draw(st.permutations(sound))


@st.composite
def written(draw: st.DrawFn, topic: str) -> bytes | None:
    """Draw a record's value: spaced or not, escaped or not, cut or not."""
    pairs = draw(members(topic))
    comma, colon = draw(st.sampled_from(((",", ":"), (", ", ": "), (" ,\n", " :\t"))))
    is_ascii = draw(st.booleans())
    parts = (
        json.dumps(name) + colon + json.dumps(member, ensure_ascii=is_ascii)
        for name, member in pairs
    )
    text = "{" + comma.join(parts) + "}"
    oddity = draw(st.integers(0, 19))
    if oddity == 0:
        return draw(st.sampled_from((None, b"", b"null", b"[]", b'"', b"\xff", b"{" * 50)))
    if oddity == 1:
        return text.encode()[: draw(st.integers(0, len(text)))]
    if oddity == 2:
        return text.replace("seo", r"s\u0065o").encode()
    if oddity == 3:
        return text.replace("seo", "s\x01o").encode("utf-8")
    if oddity == 4:
        return f" \n{text}\r\n".encode()
    if oddity == 5:
        return (text + draw(st.sampled_from(("}", "x", '""', "\0")))).encode()
    return text.encode()


def batches(topic: str) -> st.SearchStrategy[list[tuple[list[bytes | None], int]]]:
    timestamps = st.sampled_from((NOW_MS, NOW_MS - 40_000, -1, 10**15))
    return st.lists(st.tuples(st.lists(written(topic), max_size=6), timestamps), max_size=4)


SEEN = b'{"event_id":"e","source":"s","occurred_at":"2026-03-29T11:59:59Z","channel":"seo"}'
KNOWN = SEEN[:-1] + b',"impression_id":"i"}'
ALIKE = SEEN[:-1] + b',"visitor_id":"v"}'
TWICE = SEEN[:-1] + b',"channel":"ads"}'
SHORT = b'{"event_id":"e","source":"s","occurred_at":"2026-03-29T11:59:59Z"}'


@pytest.mark.parametrize("rules", [RULES, DEDUP])
@pytest.mark.parametrize("topic", ["impressions", "clicks"])
@settings(max_examples=200)
@given(data=st.data())
def test_the_quick_path_and_the_reader_agree_on_any_stream(
    topic: str, rules: Rules, data: st.DataObject
) -> None:
    stream = data.draw(batches(topic))
    assert counted(topic, stream, rules) == read_all(topic, stream, rules)


@given(st.permutations([SEEN, TWICE, SHORT, SEEN]))
@example([SEEN, TWICE, SHORT])
def test_a_key_that_comes_twice_is_found_though_other_records_make_up_for_its_quotes(
    values: list[bytes],
) -> None:
    # TWICE has four quotation marks too many, SHORT four too few.
    stream: list[tuple[list[bytes | None], int]] = [([SEEN], NOW_MS), ([*values], NOW_MS)]
    assert counted("impressions", stream) == read_all("impressions", stream)
    assert counted("impressions", stream)[0, "", "", "malformed"] == 1


@pytest.mark.parametrize("fraction", ["9999994", "9999995", "9999999", "99999949", "999999" * 3])
def test_a_fraction_that_the_decoder_rounds_up_stays_in_its_minute(fraction: str) -> None:
    value = SEEN.replace(b":59Z", f":59.{fraction}Z".encode())
    minute = ms("2026-03-29T11:59:00Z") // 60_000
    counts = counted("clicks", [([SEEN, value], NOW_MS), ([value, value], NOW_MS)])
    assert counts == {(minute, "seo", "-", "clicks"): 4}


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "1999-12-31T23:30:00-01:00"]
)
def test_a_time_at_the_ends_of_the_calendar_is_left_to_the_reader(time: str) -> None:
    counter = VolumeCounter("clicks", RULES)
    counter.learn(SEEN)
    value = SEEN.replace(b"2026-03-29T11:59:59Z", time.encode())
    assert counter.count([SEEN, value, SEEN], 10**15) == [1]


def test_what_happened_after_its_record_is_left_to_the_reader() -> None:
    counter = VolumeCounter("clicks", RULES)
    counter.learn(SEEN)
    later = SEEN.replace(b"11:59:59", b"12:01:00")
    assert counter.count([SEEN, later], NOW_MS) == [1]


def test_a_known_shape_is_counted_without_the_reader() -> None:
    counter = VolumeCounter("clicks", RULES)
    assert counter.count([SEEN, SEEN], NOW_MS) == [0, 1]
    counter.learn(SEEN)
    assert counter.count([SEEN] * 1000, NOW_MS) == []
    (one,) = counter.take()
    assert (one.channel, one.campaign_id, one.facts, one.amount) == ("seo", "-", ("clicks",), 1000)
    assert counter.take() == []


@pytest.mark.parametrize(
    ("topic", "rules", "is_quick"),
    [("impressions", RULES, True), ("impressions", DEDUP, False), ("clicks", DEDUP, True)],
)
def test_what_has_an_impression_id_is_counted_quickly_unless_it_is_to_be_recognised(
    topic: str, rules: Rules, is_quick: bool
) -> None:
    counter = VolumeCounter(topic, rules)
    assert counter.learn(KNOWN) is is_quick
    assert counter.learn(SEEN)
    # As many quotation marks as KNOWN has.
    assert counter.learn(ALIKE)
    left = counter.count([KNOWN, SEEN, KNOWN, SEEN, ALIKE, KNOWN], NOW_MS)
    assert left == ([] if is_quick else [0, 2, 5])
    assert sum(one.amount for one in counter.take()) == (6 if is_quick else 3)


def test_a_batch_that_turns_out_mixed_counts_nothing_twice() -> None:
    counter = VolumeCounter("clicks", RULES)
    counter.learn(SEEN)
    assert counter.count([SEEN, SEEN, SHORT, TWICE], NOW_MS) == [2, 3]
    assert [one.amount for one in counter.take()] == [2]


@pytest.mark.parametrize("size", [0, 1])
def test_a_record_of_the_greatest_size_is_counted_and_a_larger_one_is_left(size: int) -> None:
    counter = VolumeCounter("clicks", RULES)
    counter.learn(SEEN)
    value = SEEN + b" " * (RULES.max_bytes + size - len(SEEN))
    assert counter.count([value], NOW_MS) == [0] * size


# ----------------------------------------------------------------------------- times

INSTANT = msgspec.json.Decoder(Annotated[datetime, msgspec.Meta(tz=True)])


@given(
    st.one_of(
        TIMES,
        st.from_regex(
            r"\A20(2[5-9]|00|99)-[01]\d-[0-3]\d[Tt _][0-2]\d:[0-6]\d:[0-6]\d(\.\d{0,9})?"
            r"([Zz]|[+-][0-2]\d:?[0-6]\d|[+-]\d\d|)\Z"
        ),
        st.text("0123456789-:.+TZtz ", max_size=30),
    )
)
@settings(max_examples=500)
def test_times_are_what_the_decoder_takes_and_second_sixty(text: str) -> None:
    decoded = None
    with suppress(msgspec.MsgspecError):
        decoded = INSTANT.decode(json.dumps(text).encode())
    if text[16:19] == ":60":
        return
    if decoded is None or not 2000 <= int(text[:4]) <= 2100:
        with pytest.raises(InstantError):
            instant_ms(text)
    else:
        # The decoder rounds what is finer than a microsecond; we cut at the millisecond.
        assert 0 <= decoded.timestamp() * 1000 - instant_ms(text) <= 1.001
