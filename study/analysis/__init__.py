"""Pure analysis of a study: from the ledger's state to the answer."""
