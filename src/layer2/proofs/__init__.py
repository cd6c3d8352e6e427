"""Proofs that verify with no network and no store, long after the nodes that served them are gone."""
