"""Recordings: synthetic digits, the Free Spoken Digit Dataset, files and folders of the caller's."""
