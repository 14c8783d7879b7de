"""The contract: lanes, budgets, perturbations, goals, victims and tasks. It knows no domain, and judges nothing."""
