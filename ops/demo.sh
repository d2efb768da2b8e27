#!/bin/sh
# The main job without keys or server: on the given file, else on the exchange's public candles, else simulated.
set -eu
show() { echo "\$ atb $*"; atb "$@"; }

# The symbol of a file: said with SYMBOL=, told from the name of the file, else assumed.
symbol_of() {
    name=$(basename "$1" | tr '[:lower:]' '[:upper:]' | tr -d '/_-')
    for known in BTCUSDT ETHUSDT BNBUSDT SOLUSDT XRPUSDT ADAUSDT DOGEUSDT BTCUSDC ETHUSDC BTCUSD ETHUSD; do
        case "$name" in *"$known"*) echo "$known"; return ;; esac
    done
}

on_file() {
    symbol=${SYMBOL:-$(symbol_of "$DATA")}
    if [ -n "${SYMBOL:-}" ]; then why="as SYMBOL says"
    elif [ -n "$symbol" ]; then why="told from the file's name; SYMBOL=... says otherwise"
    else symbol=BTCUSDT why="assumed: the file's name has no symbol that is known here; SYMBOL=... says it"
    fi
    echo "Demo on your file $DATA, as candles of $symbol ($why)."
    show backtest ml_basic --symbol "$symbol" --data "$DATA" --export demo-report || {
        code=$?
        echo "The demo did not run on $DATA: the reason is the error above." >&2
        if [ "$code" -eq 10 ]; then
            echo "Its strategy, ml_basic, has models for 1h candles of BTCUSDT and ETHUSDT. Other candles, without a model:" >&2
            echo "  .venv/bin/atb backtest sma_cross --symbol $symbol --data $DATA" >&2
        fi
        exit "$code"
    }
}

simulated() { show backtest ml_basic --symbol BTCUSDT --provider simulated --seed 7 --export demo-report; }

on_binance() {
    echo "Demo on Binance's public candles (no keys needed)."
    code=0
    show backtest ml_basic --symbol BTCUSDT --timeframe 1h --days 365 --export demo-report || code=$?
    case $code in
        0) ;;
        4 | 5)
            echo "Binance stopped answering; the demo goes on with the simulated market." >&2
            simulated ;;
        *) exit "$code" ;;
    esac
}

if [ -n "${DATA:-}" ]; then
    on_file
elif python "$(dirname "$0")/answers.py"; then
    on_binance
else
    echo "Binance does not answer from here: the demo runs on the SIMULATED market."
    simulated
fi
echo "Open demo-report/report.html in a browser."
