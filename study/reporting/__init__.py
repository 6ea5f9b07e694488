"""Output for people: tables, plots, a live display, an HTML report, exports."""
