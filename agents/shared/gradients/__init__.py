"""What attacks by gradients share: losses on classes, steps, least distortion."""
