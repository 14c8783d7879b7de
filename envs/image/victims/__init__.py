"""Victims: trained by a recipe, loaded by name or folder, wrapped."""
