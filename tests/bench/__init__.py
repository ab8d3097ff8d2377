"""One job, four engines, one real broker: `python -m tests.bench`; README.md says how to read it."""
