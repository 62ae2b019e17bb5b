"""Text and structured records to closes: production logs of the systems that people run."""
