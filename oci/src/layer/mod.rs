//! Layers: deterministic tar streams, compressed, digested on the way.
