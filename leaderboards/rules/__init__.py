"""What a board says, before anyone plays: tasks, budgets, phases, commitments, reasons."""
