"""Images: norm balls and few-pixel edits on handwritten digits, MNIST, or your own."""
