"""How good probabilities are: one definition each. docs/models.md says how to read them."""

from __future__ import annotations

import numpy as np

from atb.engine.candles import Floats


def scores(up: Floats, p: Floats) -> dict[str, float]:
    values = {
        "log_loss": log_loss(up, p), "brier": float(np.mean((p - up) ** 2)), "auc": auc(up, p),
        "accuracy": float(np.mean((p > 0.5) == (up > 0.5))),
    }  # fmt: skip
    return {name: round(value, 5) for name, value in values.items()}


def log_loss(up: Floats, p: Floats) -> float:
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return float(-np.mean(np.log(np.where(up > 0.5, p, 1.0 - p))))


def auc(up: Floats, score: Floats) -> float:
    """How probable it is that a rise scored higher than a fall, ties counting half; 0.5 where there is only one kind."""
    _, where, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2.0)[where]
    ups = float(up.sum())
    downs = len(up) - ups
    return float((rank[up > 0.5].sum() - ups * (ups + 1) / 2.0) / (ups * downs)) if ups and downs else 0.5


def calibration(up: Floats, p: Floats) -> list[dict[str, float]]:
    """Ten equal groups by prediction: what was predicted on average, and how often it rose."""
    groups = np.array_split(np.argsort(p, kind="stable"), 10)
    return [
        {"predicted": round(float(p[g].mean()), 4), "observed": round(float(up[g].mean()), 4), "rows": len(g)}
        for g in groups
        if len(g)
    ]
