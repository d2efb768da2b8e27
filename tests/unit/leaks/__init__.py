"""Faulty strategies, planted to be found by the gate, and honest ones that look suspicious."""
