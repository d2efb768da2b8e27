"""From what is wanted to orders on a wire, and from what the exchange tells back to the ledger."""
