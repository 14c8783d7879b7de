"""What keeps an attack on a graph unnoticeable."""
