"""Kills, pauses and cut-off connections, and what the numbers are afterwards."""
