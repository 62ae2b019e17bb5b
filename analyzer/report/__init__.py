"""Rows to counts, counts to a report, a report to text."""
