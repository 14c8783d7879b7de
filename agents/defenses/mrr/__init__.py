"""The modules of modular robust redundancy: latent defenders and sparse dictionaries."""
