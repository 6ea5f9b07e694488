"""What a person sees of a study: tables, plots, one page."""
