"""Everything that waits, reads or writes."""
