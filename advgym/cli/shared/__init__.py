"""What commands share: options that are checked alike, what a shell completes, tables that fit the terminal."""
