"""A logistic regression with a calibration: fitted by Newton's method, written as an ONNX graph.

The loss is convex, so there is one answer and no randomness: it is found to convergence in float64 and rounded to
float32, which hides what another processor might do in the last bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from atb.engine.candles import Floats
from atb.strategy.model import INPUT, OUTPUT

LARGEST_Z = 5.0  # standard deviations at which a feature is cut off
OPSET, IR_VERSION = 17, 8  # of the graph: onnxruntime has read these since 1.13


class Fit(NamedTuple):
    """logit = slope * (clip((x - mean) * inverse_std) @ weights + bias) + offset."""

    mean: Floats
    inverse_std: Floats
    weights: Floats
    bias: float
    slope: float = 1.0
    offset: float = 0.0

    def standardise(self, x: Floats) -> Floats:
        return np.clip((x - self.mean) * self.inverse_std, -LARGEST_Z, LARGEST_Z)

    def logit(self, x: Floats) -> Floats:
        return np.asarray(self.standardise(x) @ self.weights + self.bias)


def fit_logistic(x: Floats, up: Floats, penalty: float) -> Fit:
    """Minimise mean log loss + penalty / 2 * |weights|^2 over standardised features.

    x: float64[rows, k]; up: float64[rows], 0 or 1. The fit is not yet calibrated (slope 1, offset 0).
    """
    mean, std = x.mean(axis=0), x.std(axis=0)
    inverse = np.where(std > 1e-9, 1.0 / np.maximum(std, 1e-9), 0.0)  # a constant feature says nothing
    fit = Fit(mean, inverse, np.zeros(x.shape[1]), 0.0)
    z = np.column_stack([fit.standardise(x), np.ones(len(x))])
    beta = _newton(z, up, np.append(np.full(x.shape[1], penalty), 1e-12))
    return fit._replace(weights=beta[:-1], bias=float(beta[-1]))


def calibrate(fit: Fit, logit: Floats, up: Floats, x: Floats, rate: float) -> Fit:
    """`fit` with Platt's slope and a level.

    The slope shrinks the scores to what predictions were worth that had not seen their rows: `logit`, float64[rows], each
    less the bias of the fit that made it, and `up`. A slope below 0 would turn the model round on noise: then it is 0.
    The level is not learnt there, because rises and falls were not as frequent then: the mean prediction for the
    training rows `x` is put at their own `rate` of rises.
    """
    slope = max(0.0, float(_newton(np.column_stack([logit, np.ones(len(logit))]), up, np.full(2, 1e-9))[0]))
    score = slope * fit.logit(x)
    offset = 0.0
    for _ in range(50):
        p = sigmoid(score + offset)
        step = float((p.mean() - rate) / np.mean(p * (1.0 - p)))
        offset -= step
        if abs(step) < 1e-12:
            break
    return fit._replace(slope=slope, offset=offset)


def _newton(z: Floats, up: Floats, penalty: Floats) -> Floats:
    beta = np.zeros(z.shape[1])
    for _ in range(50):
        p = sigmoid(z @ beta)
        gradient = z.T @ (p - up) / len(up) + penalty * beta
        curvature = z.T @ (z * (p * (1.0 - p))[:, None]) / len(up) + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        beta -= step
        if float(np.abs(step).max()) < 1e-12:
            break
    return beta


def sigmoid(logit: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logit, -500.0, 500.0))))


def build_graph(fit: Fit) -> bytes:
    """The fit as ONNX bytes: float32[rows, k] -> float32[rows, 1], all steps inside, nothing to be kept beside it."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "mean": fit.mean, "inverse_std": fit.inverse_std, "low": -LARGEST_Z, "high": LARGEST_Z,
        "weights": fit.weights[:, None], "bias": [fit.bias], "slope": [fit.slope], "offset": [fit.offset],
    }  # fmt: skip
    steps = (
        ("Sub", (INPUT, "mean"), "centred"),
        ("Mul", ("centred", "inverse_std"), "scaled"),
        ("Clip", ("scaled", "low", "high"), "standardised"),
        ("Gemm", ("standardised", "weights", "bias"), "score"),
        ("Mul", ("score", "slope"), "sloped"),
        ("Add", ("sloped", "offset"), "logit"),
        ("Sigmoid", ("logit",), OUTPUT),
    )
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], name=output) for kind, inputs, output in steps],
        "atb_basic",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", len(fit.mean)])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(np.asarray(v, dtype=np.float32), name) for name, v in constants.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="atb")
    return bytes(model.SerializeToString(deterministic=True))
