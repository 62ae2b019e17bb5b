"""What is known about close codes, as data with sources."""
