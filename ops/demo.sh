#!/bin/sh
# The main job without keys or server: on the given file, else on the exchange's public candles, else simulated.
set -eu
show() { echo "\$ atb $*"; atb "$@"; }

if [ -n "${DATA:-}" ]; then
    echo "Demo on your file $DATA."
    show backtest ml_basic --symbol BTCUSDT --data "$DATA" --export demo-report
elif python -c 'import sys; from atb.app import App; from atb.venue.reachable import reachable; sys.exit(not reachable("binance", App().settings.urls.get("binance")))'; then
    echo "Demo on Binance's public candles (no keys needed)."
    show backtest ml_basic --symbol BTCUSDT --timeframe 1h --days 365 --export demo-report || {
        echo "Binance stopped answering; the demo goes on with the simulated market." >&2
        show backtest ml_basic --symbol BTCUSDT --provider simulated --seed 7 --export demo-report
    }
else
    echo "Binance does not answer from here: the demo runs on the SIMULATED market."
    show backtest ml_basic --symbol BTCUSDT --provider simulated --seed 7 --export demo-report
fi
echo "Open demo-report/report.html in a browser."
