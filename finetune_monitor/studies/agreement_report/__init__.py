"""The report of an agreement study: verdicts, tables, figures, and images."""
