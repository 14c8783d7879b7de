"""Small networks on waveforms, and the front ends of others."""
