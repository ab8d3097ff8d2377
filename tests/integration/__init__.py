"""The whole of LeadPulse on a real broker, a real Redis and a real Prometheus."""
