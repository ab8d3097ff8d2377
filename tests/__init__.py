"""Tests: they mirror kpis and streams; contracts, replay, faults, integration, bench beside."""
