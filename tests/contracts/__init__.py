"""Promises that a fake and the real thing keep alike."""
