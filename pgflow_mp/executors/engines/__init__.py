"""Distributed engines behind ``call_engines.CallEngine``. Their packages are imported once one is opened."""
