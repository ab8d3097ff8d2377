"""What an alert says to a marketer: one or two sentences, in English and French."""

from kpis.alert_english import ENGLISH
from kpis.alert_french import FRENCH
from kpis.alert_wording import Wording
from kpis.alerts import Alert
from kpis.decomposition import Explanation


def message_en(alert: Alert, explanation: Explanation | None, currency: str) -> str:
    """Return the English message; amounts are followed by `currency`, ISO 4217."""
    return _message(ENGLISH, alert, explanation, currency)


def message_fr(alert: Alert, explanation: Explanation | None, currency: str) -> str:
    """Return the French message; amounts are followed by `currency`, ISO 4217."""
    return _message(FRENCH, alert, explanation, currency)


def _message(wording: Wording, alert: Alert, explanation: Explanation | None, currency: str) -> str:
    sentences = [wording.sentence(alert, currency)]
    if explanation is not None:
        sentences += wording.reasons(explanation, currency)
    return " ".join(sentences)
