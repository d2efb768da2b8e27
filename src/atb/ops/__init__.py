"""What an operator does: close, record, back up, restore."""
