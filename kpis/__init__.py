"""The pure core: events in, KPIs out; no clock, no I/O, no floats in state."""
