"""Pure analysis of a study: computes the answer from the ledger's state."""
