// Time zones, as far as this browser knows them.

const clocks = new Map();

/** Return the zone, or UTC if the browser does not know it; the header names the one that is meant. */
export function knownZone(zone) {
  try {
    Intl.DateTimeFormat("en", { timeZone: zone });
    return zone;
  } catch {
    return "UTC";
  }
}

/** Return how far the clocks of a zone are ahead of UTC at an instant. */
export function aheadMs(zone, ms) {
  const told = Object.fromEntries(clock(zone).formatToParts(ms).map(({ type, value }) => [type, Number(value)]));
  return Date.UTC(told.year, told.month - 1, told.day, told.hour, told.minute, told.second) - Math.floor(ms / 1000) * 1000;
}

function clock(zone) {
  if (!clocks.has(zone)) {
    const all = Object.fromEntries(["year", "month", "day", "hour", "minute", "second"].map((part) => [part, "numeric"]));
    clocks.set(zone, new Intl.DateTimeFormat("en", { ...all, hourCycle: "h23", timeZone: knownZone(zone) }));
  }
  return clocks.get(zone);
}
