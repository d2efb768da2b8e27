"""Trading: the loop over candles and time, on paper, on history and with real money."""
