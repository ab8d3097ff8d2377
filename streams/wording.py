"""How commands speak of alerts in the user's language: words, times and durations."""

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Final

from kpis.facts import OVERALL, Scope
from kpis.instants import DAY_MS, HOUR_MS, MINUTE_MS
from streams.question import scope_text

ENGLISH: Final = "en"
FRENCH: Final = "fr"

_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "firing": ("FIRING", "EN COURS"),
    "resolved": ("resolved", "terminée"),
    "since": ("since {} ({})", "depuis {} ({})"),
    "ended": ("{}, lasted {}", "{}, a duré {}"),
    "all": ("all channels", "tous les canaux"),
    "one_firing": ("1 alert is firing", "1 alerte en cours"),
    "more_firing": ("{} alerts are firing", "{} alertes en cours"),
    "no_firing": ("no alert is firing", "aucune alerte en cours"),
    "one_resolved": ("1 was resolved in the last 24 hours", "1 terminée ces dernières 24 heures"),
    "more_resolved": (
        "{} were resolved in the last 24 hours",
        "{} terminées ces dernières 24 heures",
    ),
    "no_resolved": (
        "none was resolved in the last 24 hours",
        "aucune terminée ces dernières 24 heures",
    ),
    "watching": ("{} rules watch: {}", "{} règles veillent : {}"),
    "one_watching": ("1 rule watches: {1}", "1 règle veille : {1}"),
    "no_watching": ("no rule watches: all are switched off", "aucune règle ne veille"),
    "day": ("d", "j"),
    "hour": ("h", "h"),
    "minute": ("min", "min"),
    "tried": ("{}, {} to {} ({})", "{}, du {} au {} ({})"),
    "one_scope": ("1 scope", "1 périmètre"),
    "more_scope": ("{} scopes", "{} périmètres"),
    "one_fired": ("would have fired once", "aurait alerté une fois"),
    "more_fired": ("would have fired {} times", "aurait alerté {} fois"),
    "no_fired": ("would not have fired", "n'aurait pas alerté"),
    "until": ("resolved {} (after {})", "terminée {} (après {})"),
    "still": ("still firing at the end", "encore en cours à la fin"),
    "hindsight": (
        "With hindsight: what arrived late or was corrected counts as it is known today.",
        "A posteriori : ce qui est arrivé tard ou a été corrigé compte comme on le sait aujourd'hui.",
    ),
    "deleted": (
        "The broker has deleted {} input records: what they told is not counted here.",
        "Le broker a supprimé {} enregistrements d'entrée : ils ne comptent pas ici.",
    ),
}


def language_of(environ: Mapping[str, str]) -> str:
    """Return `fr` where the user's messages are French, else `en`.

    Source: POSIX, LC_ALL before LC_MESSAGES before LANG.
    """
    named = (environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    locale = next(filter(None, named), "").lower()
    return FRENCH if locale == FRENCH or locale.startswith(("fr_", "fr-", "fr.")) else ENGLISH


class Wording:
    """Words of one language, with times of one zone."""

    def __init__(self, language: str, zone: tzinfo) -> None:
        self.language = language
        self._index = (ENGLISH, FRENCH).index(language)
        self._zone = zone

    def say(self, name: str, *parts: object) -> str:
        """Return a phrase with its parts filled in."""
        return _WORDS[name][self._index].format(*parts)

    def count(self, of: str, count: int) -> str:
        """Return the phrase of so many: of none, of one or of more."""
        word = f"no_{of}" if count == 0 else f"one_{of}" if count == 1 else f"more_{of}"
        return self.say(word, self.number(count))

    def number(self, count: int) -> str:
        """Return a whole number with its thousands told apart."""
        # A French thin space that does not break.
        mark = "," if self.language == ENGLISH else "\N{NARROW NO-BREAK SPACE}"
        return f"{count:,}".replace(",", mark)

    def scope(self, scope: Scope) -> str:
        """Return how a scope is called."""
        return self.say("all") if scope == OVERALL else scope_text(scope)

    def time(self, at_ms: int) -> str:
        """Return a local date and time, to the minute."""
        return datetime.fromtimestamp(at_ms / 1000, self._zone).strftime("%Y-%m-%d %H:%M")

    def lasted(self, duration_ms: int) -> str:
        """Return a duration in its two largest units."""
        left_ms = max(duration_ms, 0)
        parts: list[str] = []
        for name, unit_ms in (("day", DAY_MS), ("hour", HOUR_MS), ("minute", MINUTE_MS)):
            count, left_ms = divmod(left_ms, unit_ms)
            if count or (name == "minute" and not parts):
                parts.append(f"{count} {self.say(name)}")
        return " ".join(parts[:2])
