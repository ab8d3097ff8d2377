"""The real broker and the real Redis that tests start and stop themselves."""
