// How numbers, times and spans are written in a language, a currency and a zone.

import { knownZone } from "./zones.js";

const LONG = 100_000;

/** Return the functions that write values; made anew when language, currency or zone change. */
export function formats(language, currency, zone) {
  const locale = language === "fr" ? "fr-FR" : "en-GB";
  const number = (options) => new Intl.NumberFormat(locale, options);
  const money = (digits) => moneyFormat(number, currency, digits);
  const exact = money(2);
  const whole = money(0);
  const count = number({ maximumFractionDigits: 0 });
  const percents = [0, 1, 2].map((digits) =>
    number({ style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits }));
  const rough = [0, 1].map((digits) =>
    number({ style: "percent", maximumFractionDigits: digits }));
  const timeZone = knownZone(zone);
  const moment = (options) => {
    const format = new Intl.DateTimeFormat(locale, { hourCycle: "h23", timeZone, ...options });
    return (ms) => (Number.isFinite(ms) ? format.format(ms) : "—");
  };
  const unit = (name) => number({ style: "unit", unit: name, unitDisplay: "narrow" });
  const units = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]].map(
    ([name, seconds]) => [unit(name), seconds]);

  const amount = (value) => (Math.abs(value) >= LONG ? whole : exact).format(value);
  // Small shares need more digits: a click rate of 0.04 % is no 0 %.
  const share = (value) => {
    const size = Math.abs(value);
    return percents[size >= 1 ? 0 : size >= 0.1 ? 1 : 2].format(value);
  };
  return {
    locale,
    timeZone,
    amount,
    wholeAmount: (value) => whole.format(value),
    share,
    count: (value) => count.format(value),
    /** Return a value with its unit, with a real minus. */
    value: (value, kind) => {
      const text = kind === "amount" ? amount(value)
        : kind === "share" ? share(value)
        : kind === "ratio" ? percents[0].format(value)
        : count.format(value);
      return text.replace("-", "−");
    },
    change: (value) => rough[Math.abs(value) < 0.1 ? 1 : 0].format(value),
    points: (value) => count.format(value * 100),
    clock: moment({ hour: "2-digit", minute: "2-digit", second: "2-digit" }),
    short: moment({ hour: "2-digit", minute: "2-digit" }),
    day: moment({ day: "numeric", month: "short" }),
    dayAndTime: moment({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }),
    /** Return a span in its largest unit, and the next if that is short: "1 h 12 min". */
    span: (ms) => {
      const seconds = Math.max(0, Math.floor(ms / 1000));
      const at = Math.max(0, units.findIndex(([, size]) => seconds >= size));
      if (seconds < 1) return units[3][0].format(0);
      const [first, size] = units[at];
      const whole = Math.floor(seconds / size);
      const next = units[at + 1];
      const rest = next && whole < 10 ? Math.floor((seconds % size) / next[1]) : 0;
      return rest ? `${first.format(whole)} ${next[0].format(rest)}` : first.format(whole);
    },
  };
}

function moneyFormat(number, currency, digits) {
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  try {
    return number({ style: "currency", currency, currencyDisplay: "narrowSymbol", ...options });
  } catch {
    const plain = number(options);
    return { format: (value) => `${plain.format(value)} ${currency}` };
  }
}
