"""The worked example of the contract; README.md says what it shows."""
