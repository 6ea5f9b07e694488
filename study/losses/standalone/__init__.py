"""A loss as one readable file that needs torch alone, and its equals in other libraries."""
