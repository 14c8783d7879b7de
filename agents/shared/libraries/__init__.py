"""What bridges to other libraries share."""
