"""Symbols as exchanges and vendors write them."""

SYMBOLS = (
    "BTC-USD",
    "EURUSD+",
    "M&M",
    "J&KBANK",
    "NIFTY1!",
    "btcusdt@trade",
    "EUR/USD",
    "^GSPC",
    "ES=F",
    "BTC:PERP",
    "A~B_c",
    "BRK.B",
)
"""Each is a channel after a prefix. `BRK.B` is two segments."""
